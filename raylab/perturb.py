"""What may take the place of a layer's trained weights, and putting it there for a while.

A perturbation is called once for each parameter tensor of a layer: weights and biases are replaced together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from raylab.errors import UserError
from raylab.registry import Registry
from raylab.types import ORIGINAL, Array, LayerWeights, Perturbation

if TYPE_CHECKING:
    from torch import nn

PERTURBATIONS: Registry[Perturbation] = Registry("perturbation")
DETERMINISTIC = frozenset({ORIGINAL, "reinit"})  # every draw of these is the same: one is enough
NEED_THETA_0 = frozenset({"reinit", "reinit_signs"})
NEED_NO_LAW = frozenset({ORIGINAL, "reinit", "permute"})  # they draw nothing afresh


@PERTURBATIONS.register(ORIGINAL)
def original(weights: LayerWeights, rng: np.random.Generator) -> Array:
    """The trained tensor as it is."""
    return weights.trained


@PERTURBATIONS.register("reinit")
def reinit(weights: LayerWeights, rng: np.random.Generator) -> Array:
    """The tensor's own theta_0 (Zhang et al. 2019). Raises UserError where theta_0 is not known."""
    return _initial(weights)


@PERTURBATIONS.register("rerandomize")
def rerandomize(weights: LayerWeights, rng: np.random.Generator) -> Array:
    """A fresh draw from the law that the tensor was initialised with."""
    return _fresh(weights, rng)


@PERTURBATIONS.register("reinit_signs")
def reinit_signs(weights: LayerWeights, rng: np.random.Generator) -> Array:
    """The signs of theta_0 on the magnitudes of a fresh draw ("Efficacy of data-free metrics", Fig. 12)."""
    return np.copysign(_fresh(weights, rng), _initial(weights))


@PERTURBATIONS.register("permute")
def permute(weights: LayerWeights, rng: np.random.Generator) -> Array:
    """The trained entries in a random order: same histogram, no structure."""
    return rng.permutation(weights.trained.ravel()).reshape(weights.trained.shape)


def perturb(
    perturbation: Perturbation, layer: Mapping[str, LayerWeights], rng: np.random.Generator
) -> dict[str, Array]:
    """The new tensor of every parameter of a layer, drawn in the mapping's order.

    The dtype stays the trained one's. Raises UserError where a perturbation (someone's own) gives back another shape,
    or what is no finite number: a model with such weights is wrong about everything, which would pass for a result.
    """
    new = {}
    for name, weights in layer.items():
        array = np.asarray(perturbation(weights, rng))
        made = f"The perturbation {getattr(perturbation, '__name__', perturbation)} made"
        place = f"{weights.layer.name}.{name}"
        if array.shape != weights.trained.shape:
            raise UserError(
                f"{made} {array.shape} of {place}, which has shape {weights.trained.shape}: return the same shape."
            )
        if array.dtype.kind not in "fiub":
            raise UserError(f"{made} an array of {array.dtype} of {place}: return real numbers.")
        with np.errstate(over="ignore"):  # what is too large for the dtype is infinite, and said below
            new[name] = array.astype(weights.trained.dtype, copy=False)
        if not np.isfinite(new[name]).all():
            given = np.isfinite(weights.trained).all()
            advice = "return finite ones" if given else "the model's own are not all finite, leave out this layer"
            raise UserError(f"{made} NaN or infinite numbers ({new[name].dtype}) of {place}: {advice}.")
    return new


@contextmanager
def perturbed(module: nn.Module, arrays: Mapping[str, Array]) -> Iterator[None]:
    """Within the `with` block parameters of `module` are these, by name ("fc1.weight"); afterwards the old ones.

    The old tensors are set aside bit for bit, not copied, so that leaving (also by an exception) cannot fail or round;
    they may lie in memory that nobody can write to. A parameter that two modules share changes in both. ValueError for
    a parameter or shape that the module does not have.
    """
    import torch

    parameters = {name: _parameter(module, name, array.shape) for name, array in arrays.items()}
    # empty_like keeps memory format, device and dtype of what is replaced.
    new = {name: torch.empty_like(p.data).copy_(torch.tensor(arrays[name])) for name, p in parameters.items()}
    old = {name: p.data for name, p in parameters.items()}
    try:
        for name, p in parameters.items():
            p.data = new[name]
        yield
    finally:
        for name, p in parameters.items():
            p.data = old[name]


def _parameter(module: nn.Module, name: str, shape: tuple[int, ...]) -> nn.Parameter:
    try:
        parameter = module.get_parameter(name)
    except AttributeError as error:
        raise ValueError(f"the model has no parameter '{name}'") from error
    if tuple(parameter.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(parameter.shape)}, its replacement {shape}")
    return parameter


def _initial(weights: LayerWeights) -> Array:
    if weights.initial is None:
        raise UserError(
            f"Layer {weights.layer.name} has no known initial weights, so that it cannot be re-initialised: "
            "use perturbations=[rerandomize] for models whose initialisation was never published."
        )
    return weights.initial


def _fresh(weights: LayerWeights, rng: np.random.Generator) -> Array:
    """A draw that is not theta_0 in disguise: a generator seeded like the initialisation's would make it so."""
    fresh = weights.draw(rng)
    constant = fresh.size < 2 or bool(np.all(fresh == fresh.flat[0]))
    if weights.initial is not None and not constant and np.array_equal(fresh, weights.initial):
        raise ValueError(f"the draw for {weights.layer.name} equals its theta_0: the generator is the initialisation's")
    return fresh
