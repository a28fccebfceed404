"""The models that an experiment trains: how they begin, how they are trained, and as what they are evaluated.

A ReLU network of fully connected layers that is trained by plain SGD goes by steps that are written out for it
(raylab/train/relu.py), which is several times faster. Any other torch classifier goes by autograd.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from raylab.data import ClassificationData
from raylab.errors import UserError, first_line
from raylab.experiments.layer_weights import Draw, FreshDraw
from raylab.layers import LayerParameters
from raylab.models.drawn import Drawn, drawn
from raylab.models.inputs import Prepare, preparing
from raylab.models.kernels import as_tensor, take_the_fast_road
from raylab.models.randomness import private_randomness
from raylab.registry import call
from raylab.train import AUTOGRAD_VERSION, TRAIN_VERSION, State, relu_network, train, train_by_autograd, train_stacked
from raylab.types import Array, Recipe, generator

MODEL_METHODS = ("initial_state", "initial_law", "load")
# What makers of models call the classes of the data, and the numbers in one sample.
OUTPUTS, INPUTS = ("outputs", "classes", "num_classes"), "inputs"
Outcomes = Sequence["State | Exception"]


class Trainee(Protocol):
    """A model that is trained here. Picklable."""

    @property
    def version(self) -> str:
        """Of its training: raised whenever the same recipe and generator would give other weights."""
        ...

    @property
    def identity(self) -> Sequence[str]:
        """Whatever else determines its weights, and is in no config."""
        ...

    def initial(self, rng: np.random.Generator) -> Mapping[str, Array]:
        """theta_0, with the buffers that it starts with."""
        ...

    def train(
        self,
        initials: Sequence[Mapping[str, Array]],
        data: ClassificationData,
        recipe: Recipe,
        rngs: Sequence[np.random.Generator],
    ) -> Outcomes:
        """Weights and buffers of a model for each theta_0; of one that diverged its exception."""
        ...

    def module(self, state: Mapping[str, Array], device: str = "cpu") -> nn.Module:
        """With these weights, to be evaluated."""
        ...

    def prepare(self, data: ClassificationData, device: str) -> Prepare | None:
        """Of a batch of the data as it is stored what the module takes; None: just that."""
        ...

    def draw(self, parameters: LayerParameters, name: str) -> Draw:
        """How a parameter of a layer is drawn afresh; str() names its law."""
        ...


@dataclass(frozen=True)
class ReluTrainee:
    """raylab.models.fcn.FCN, or what computes the same: it draws its own weights."""

    make: Callable[[], Any]
    version: str = TRAIN_VERSION
    identity: Sequence[str] = ()

    def initial(self, rng: np.random.Generator) -> Mapping[str, Array]:
        """theta_0."""
        return self.make().initial_state(rng)

    def train(
        self,
        initials: Sequence[Mapping[str, Array]],
        data: ClassificationData,
        recipe: Recipe,
        rngs: Sequence[np.random.Generator],
    ) -> Outcomes:
        """One after another on a core; on a GPU all at once."""
        if len(initials) > 1 and torch.cuda.is_available():
            return train_stacked(initials, data, recipe, rngs)
        return [_tried(train, initial, data, recipe, rng) for initial, rng in zip(initials, rngs, strict=True)]

    def module(self, state: Mapping[str, Array], device: str = "cpu") -> nn.Module:
        """With these weights, to be evaluated."""
        model = self.make().load(state).to(device)
        if device == "cpu":
            take_the_fast_road(model)
        return model

    def prepare(self, data: ClassificationData, device: str) -> None:
        """It takes the data as they are."""

    def draw(self, parameters: LayerParameters, name: str) -> Draw:
        """By the model's own law."""
        return self.make().initial_law(parameters.layer, name.rpartition(".")[2])


@dataclass(frozen=True, kw_only=True)
class AutogradTrainee:
    """Any torch classifier whose initial weights can be drawn."""

    drawn: Drawn
    flat: bool  # it takes flat samples
    version: str = AUTOGRAD_VERSION

    @property
    def identity(self) -> Sequence[str]:
        """What its library builds: another release may build another network, or draw it otherwise."""
        return [self.drawn.identity, "flat" if self.flat else "in shape"]

    def initial(self, rng: np.random.Generator) -> Mapping[str, Array]:
        """theta_0, and buffers as they are built."""
        return self.drawn.initial_state(rng)

    def train(
        self,
        initials: Sequence[Mapping[str, Array]],
        data: ClassificationData,
        recipe: Recipe,
        rngs: Sequence[np.random.Generator],
    ) -> Outcomes:
        """One after another."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        descend = functools.partial(train_by_autograd, flat=self.flat)
        return [
            _tried(descend, self.drawn.trainable(initial, device), data, recipe, rng)
            for initial, rng in zip(initials, rngs, strict=True)
        ]

    def module(self, state: Mapping[str, Array], device: str = "cpu") -> nn.Module:
        """With these weights, to be evaluated: batch norm by its running statistics."""
        model = self.drawn.module(state, device)
        if device == "cpu":
            take_the_fast_road(model)
        return model

    def prepare(self, data: ClassificationData, device: str) -> Prepare:
        """Normalised, as images or flat."""
        return preparing(data, device, flat=self.flat)

    def draw(self, parameters: LayerParameters, name: str) -> Draw:
        """By the law that its library uses."""
        return FreshDraw(self.drawn.laws[name], self.drawn.network.tensors[name].shape, parameters)


def _tried(train: Callable[..., State], *arguments: Any) -> State | Exception:
    """A model that diverges is its exception, so that the others survive."""
    try:
        return train(*arguments)
    except ArithmeticError as error:
        return error


def trainee(make: Callable[..., Any], model: Mapping[str, Any], data: ClassificationData, recipe: Recipe) -> Trainee:
    """What `make`, bound to the config of a model, makes for the data.

    Of how many classes and of how many inputs these are it is told if it takes that (`OUTPUTS`, `INPUTS`) and the
    config does not say; what takes `inputs` gets flat samples. Raises UserError for what cannot be trained on the data.
    """
    name = str(model.get("name", model["_target_"]))
    taken = inspect.signature(make).parameters.keys() - model.keys()
    sizes = {key: data.classes for key in OUTPUTS if key in taken} | ({INPUTS: data.inputs} if INPUTS in taken else {})
    build = functools.partial(make, **sizes)
    sample = call(build, model, "model")
    if recipe.is_plain and is_relu_network(sample, data):
        return ReluTrainee(build)
    made = AutogradTrainee(drawn=drawn(name, build), flat=INPUTS in inspect.signature(make).parameters)
    _require_trainable(made, name, data, recipe)
    return made


def is_relu_network(model: Any, data: ClassificationData) -> bool:
    """Whether the written-out steps would train it as what it is."""
    if not all(hasattr(model, method) for method in MODEL_METHODS) or data.test_x.ndim != 2:
        return False
    state = model.initial_state(generator(0, "is it a ReLU network?"))
    x, names = data.test_x[:16], list(state)
    if names[0::2] != [f"{name.removesuffix('.bias')}.weight" for name in names[1::2]]:
        return False
    try:
        return np.allclose(model.load(state)(as_tensor(x)).detach().numpy(), relu_network(state, x), atol=1e-4)
    except ValueError:  # weights of other shapes than a chain of layers has, such as those of a convolution
        return False


def _require_trainable(trainee: AutogradTrainee, name: str, data: ClassificationData, recipe: Recipe) -> None:
    """A step on very few samples, as many as an epoch may end on: an error on a worker would come hours later."""
    if recipe.augmentation != "none" and len(data.sample_shape) != 3:
        raise UserError(f"train.augmentation={recipe.augmentation} is for images, not for {data.name}: leave it out.")
    rows = 1 if len(data.train_y) % recipe.batch_size == 1 else 2
    rng = generator(0, "can it be trained?")
    try:
        with private_randomness(0):
            model = trainee.drawn.trainable(trainee.initial(rng))
            logits = model(trainee.prepare(data, "cpu")(as_tensor(data.train_x[:rows])))
            if isinstance(logits, torch.Tensor) and logits.shape == (rows, data.classes):
                nn.functional.cross_entropy(logits, as_tensor(data.train_y[:rows])).backward()
                return
    except Exception as error:  # whatever a stranger's model may raise
        raise UserError(
            f"{name} cannot be trained on {data.name} (samples of {' x '.join(map(str, data.sample_shape))}; {rows} at "
            f"once): {first_line(error)}. Give a model that takes them, or other data."
        ) from error
    given = " x ".join(map(str, logits.shape)) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
    raise UserError(
        f"{name} gives {given} for {rows} samples of {data.name}: give a model with logits of {data.classes} classes."
    )
