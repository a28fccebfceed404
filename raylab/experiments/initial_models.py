"""Models whose every layer has, untrained, an alpha within a range (Tables 4 and 5 of "Efficacy of data-free metrics").

By rejection from the draws that an experiment of kind initial_layers has measured: they are shared by all ranges, all
models and all layers of one shape, and are made anew here from their generators. A model takes the first draws that
fit and that no model of its range has; so model k is the same however many there are, wherever it is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from raylab import spectral
from raylab.data import ClassificationData, pool
from raylab.errors import UserError
from raylab.evaluate import Evaluation, PrefixWalk
from raylab.experiments.attempt import attempt
from raylab.experiments.initial_layers import INITIAL, Population, populations_of
from raylab.experiments.metrics import measured, metrics_of
from raylab.experiments.perturbations import groups_of_models
from raylab.experiments.study import Study, common
from raylab.layers import size_columns
from raylab.models.kernels import take_the_fast_road
from raylab.registry import bind, call
from raylab.types import Array, Group, Layer, Outcome, Trial, TrialResult, Value, digest, generator

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {
    **{"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int, "device": str},
    **{"accuracy": float, "loss": float, "num_samples": int, "alpha_range": str, "biases": str, "pool_draw": int},
}
EVALUATION_VERSION = "1"  # raised whenever the same draws would give another accuracy
BIASES = ("drawn", "zero")
MODELS_A_GROUP = 5


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one model is made of."""

    replicate: int
    alpha_range: str
    biases: str  # "drawn", or "zero"
    draws: Mapping[str, int]  # layer -> which draw of its population

    def checkpoint(self, populations: Mapping[str, Population]) -> str:
        """Digest of all that determines the weights but the seed."""
        return digest([[populations[name].digest, name, k] for name, k in self.draws.items()] + [self.biases])


@dataclass(frozen=True, kw_only=True)
class InitialModels(Study):
    """The experiment, with every name resolved."""

    model_name: str
    make: Callable[..., Any]  # (inputs, outputs) -> a raylab.models.fcn.FCN or the like
    data: ClassificationData
    batch_size: int
    layers: Mapping[str, Layer]
    populations: Mapping[str, Population]  # by layer
    choices: Mapping[str, Choice]  # by the digest of what the model is made of
    skipped: Mapping[str, str]

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        return self._identity(data=self.data.revision, evaluation=EVALUATION_VERSION)

    @property
    def columns(self) -> Mapping[str, type]:
        """Every value a row may carry."""
        return {**COLUMNS, **spectral.columns(self.metrics, self.options)}

    def trials(self) -> list[Trial]:
        """Each model, and each of its layers."""
        return [
            self._trial(
                model=self.model_name,
                replicate=choice.replicate,
                checkpoint=checkpoint,
                data=self.data.revision,
                layer=layer,
            )
            for checkpoint, choice in self.choices.items()
            for layer in (None, *self.layers)
        ]

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        """How many models of which range."""
        left = [self.choices[name] for name in {trial.checkpoint for trial in pending}]
        kinds = sorted(Counter((choice.alpha_range, choice.biases) for choice in left).items())
        models = {f"alpha in {within}, biases {biases}": f"{many:,} models" for (within, biases), many in kinds}
        return {"data": f"{self.data.name}, {len(self.data.test_y):,} test samples"} | models

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """A few models each."""
        return groups_of_models(pending, MODELS_A_GROUP)

    def run(self, group: Group) -> Iterator[Outcome]:
        """Make each model, evaluate it once, and give its layers to be measured."""
        torch.set_num_threads(1)
        checkpoint, state, evaluation = "", dict[str, Array](), None
        for trial in group:
            if trial.checkpoint != checkpoint:
                checkpoint, state, evaluation = trial.checkpoint, self._state(trial), None
            if evaluation is None:
                evaluation = self._evaluation(state)
            yield attempt(trial, lambda t=trial, s=state, e=evaluation: self._outcome(t, s, e))

    def measure(self, outcomes: Sequence[Outcome]) -> list[TrialResult]:
        """The spectra of the layers; a model's own row is finished as it is."""
        return measured(outcomes, self.metrics, self.options)

    def _state(self, trial: Trial) -> dict[str, Array]:
        """The weights, anew from where the pool has them; biases of the model's own, or none."""
        choice = self.choices[trial.checkpoint]
        model = self.make(inputs=self.data.inputs, outputs=self.data.classes)
        state: dict[str, Array] = {}
        for name, k in choice.draws.items():
            state[f"{name}.weight"] = self.populations[name].drawn(self.seed, k)
            bias = model.initial_law(self.layers[name], "bias")(generator(self.seed, "bias", trial.replicate, name))
            state[f"{name}.bias"] = bias if choice.biases == "drawn" else np.zeros_like(bias)
        return state

    def _evaluation(self, state: Mapping[str, Array]) -> Evaluation:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = self.make(inputs=self.data.inputs, outputs=self.data.classes).load(state).to(device)
        if device == "cpu":
            take_the_fast_road(model)
        return PrefixWalk(model, self.data.test_x, self.data.test_y, self.batch_size).evaluate()

    def _outcome(self, trial: Trial, state: Mapping[str, Array], evaluation: Evaluation) -> Outcome:
        choice = self.choices[trial.checkpoint]
        values: dict[str, Value] = {
            "accuracy": evaluation.accuracy,
            "loss": evaluation.loss,
            "num_samples": evaluation.num_samples,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "alpha_range": choice.alpha_range,
            "biases": choice.biases,
        }
        if trial.layer is None:
            return Outcome(TrialResult(trial, "ok", values))
        layer = self.layers[trial.layer]
        values |= {"layer_index": layer.index, "kind": layer.kind, "pool_draw": choice.draws[trial.layer]}
        values |= size_columns(layer, self.options.conv, self.options.groups)
        return Outcome(TrialResult(trial, "ok", values), layer, state[f"{trial.layer}.weight"])


def build(config: Config) -> InitialModels:
    """The experiment of a config. Raises UserError for what is not there, and a pool with too few draws of a range."""
    if config.pool is None:
        raise UserError(f"experiment={config.name} makes its models from a pool of draws. {pool.ADVICE}")
    metrics = metrics_of(config, COLUMNS)
    make = bind({key: value for key, value in config.model.items() if key != "name"}, "model")
    load = bind(config.data, "data")
    data = call(load, config.data, "data")
    if data.test_x.ndim != 2:
        raise UserError(f"Untrained models take flat samples, and {data.name} has images: choose data=mnist or digits.")
    model = call(make, config.model, "model", inputs=data.inputs, outputs=data.classes)
    if not hasattr(model, "initial_law"):
        raise UserError(f"The model {config.model['_target_']} has no initial_law: see raylab.models.fcn.FCN.")
    found, skipped = populations_of(model, config)
    populations = {layer.name: population for population in found for layer in population.layers}
    layers = {layer.name: layer for population in found for layer in population.layers}
    choices = _choices(pool.alphas(config.pool, INITIAL, config.seed), found, config)
    return InitialModels(
        **common(config, metrics, make, load),
        model_name=str(config.model.get("name", config.model["_target_"])),
        make=make,
        data=data,
        batch_size=config.batch_size,
        layers=dict(sorted(layers.items(), key=lambda item: item[1].index)),
        populations=populations,
        choices={choice.checkpoint(populations): choice for choice in choices},
        skipped=skipped,
    )


def _choices(alphas: Mapping[str, NDArray[np.float64]], found: Sequence[Population], config: Config) -> list[Choice]:
    """The models of each range, with and without biases."""
    made = []
    for low, high in _ranges(config.ranges):
        draws = {}
        for population in found:
            measured = alphas.get(population.digest, np.empty(0))
            fitting = np.flatnonzero((low <= measured) & (measured <= high))
            wanted = config.models * len(population.layers)
            if len(fitting) < wanted:
                raise UserError(_too_few(population, (low, high), len(fitting), wanted, len(measured), config))
            draws |= {layer.name: fitting[k :: len(population.layers)] for k, layer in enumerate(population.layers)}
        for replicate in range(config.models):
            mine = {name: int(fitting[replicate]) for name, fitting in draws.items()}
            made += [
                Choice(replicate=replicate, alpha_range=f"[{low:g}, {high:g}]", biases=biases, draws=mine)
                for biases in BIASES
            ]
    return made


def _ranges(given: Sequence[Any]) -> list[tuple[float, float]]:
    """Pairs of numbers. Raises UserError for anything else."""
    pairs = []
    for each in given:
        if not (isinstance(each, (list, tuple)) and len(each) == 2 and all(isinstance(x, (int, float)) for x in each)):
            raise UserError(f"ranges={given} must be pairs of numbers, such as ranges=[[2,6],[10,12]].")
        if not each[0] < each[1]:
            raise UserError(f"ranges={given}: {each[0]} is not less than {each[1]}.")
        pairs.append((float(each[0]), float(each[1])))
    if not pairs:
        raise UserError("ranges=[] names no range of alpha: give ranges=[[2,6],[10,12]].")
    return pairs


def _too_few(
    population: Population, bounds: tuple[float, float], fitting: int, wanted: int, drawn: int, config: Config
) -> str:
    shape = " x ".join(map(str, population.layer.shape))
    what = f"{config.models} models with alpha in [{bounds[0]:g}, {bounds[1]:g}] take {wanted} draws of {shape}"
    if not drawn:
        return f"pool={config.pool} has no draws of {shape} ({population.stands_for}). {pool.ADVICE}"
    enough = int(np.ceil(1.1 * wanted * drawn / fitting / 500) * 500) if fitting else 10 * drawn
    return (
        f"{what}, and {fitting} of the {drawn:,} in pool={config.pool} are: "
        f"`python -m raylab.run experiment=alpha_at_init draws={enough}` is likely to have enough."
    )
