"""Models made of measured draws: every layer's alpha lies, untrained, in a range.

By rejection from the draws that an experiment of kind initial_layers has measured: they are shared by all ranges, all
models and all layers of one shape, and are made anew here from their generators. A model takes the first draws that
fit and that no model of its range has; so model k is the same however many there are, wherever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raylab.data import ClassificationData, pool
from raylab.errors import UserError
from raylab.experiments.initial_layers import INITIAL, Population, populations_of
from raylab.registry import bind, call
from raylab.types import Array, Layer, digest, generator

if TYPE_CHECKING:
    from raylab.config import Config

BIASES = ("drawn", "zero")


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
class FromPool:
    """The models of a config, and what they are made of and evaluated on."""

    model_name: str
    make: Callable[..., Any]  # (inputs, outputs) -> a raylab.models.fcn.FCN or the like
    load: Callable[..., Any]  # what the data were loaded by
    data: ClassificationData
    seed: int
    layers: Mapping[str, Layer]  # in the order of the forward pass
    populations: Mapping[str, Population]  # by layer
    choices: Sequence[Choice]
    skipped: Mapping[str, str]

    def checkpoint(self, choice: Choice) -> str:
        """Digest of all that determines the weights of a model but the seed."""
        return choice.checkpoint(self.populations)

    def state(self, choice: Choice) -> dict[str, Array]:
        """The weights, anew from where the pool has them; biases of the model's own, or none."""
        model = self.make(inputs=self.data.inputs, outputs=self.data.classes)
        state: dict[str, Array] = {}
        for name, layer in self.layers.items():
            state[f"{name}.weight"] = self.populations[name].drawn(self.seed, choice.draws[name])
            bias = model.initial_law(layer, "bias")(generator(self.seed, "bias", choice.replicate, name))
            state[f"{name}.bias"] = bias if choice.biases == "drawn" else np.zeros_like(bias)
        return state


def models_from_pool(config: Config, biases: Sequence[str] = BIASES) -> FromPool:
    """The models of a config, each with these `biases`.

    Raises UserError for what is not there, a pool with too few draws of a range, and ranges that share a model.
    """
    if config.pool is None:
        raise UserError(f"experiment={config.name} makes its models from a pool of draws. {pool.ADVICE}")
    make = bind({key: value for key, value in config.model.items() if key != "name"}, "model")
    load = bind(config.data, "data")
    data = call(load, config.data, "data")
    if data.test_x.ndim != 2:
        raise UserError(f"Models of drawn layers take flat samples, and {data.name} has images: data=mnist or digits.")
    model = call(make, config.model, "model", inputs=data.inputs, outputs=data.classes)
    if not hasattr(model, "initial_law"):
        raise UserError(f"The model {config.model['_target_']} has no initial_law: see raylab.models.fcn.FCN.")
    found, skipped = populations_of(model, config)
    layers = {layer.name: layer for population in found for layer in population.layers}
    _require_all(model, layers, skipped)
    alphas = pool.alphas(config.pool, INITIAL, config.seed)
    drawn = FromPool(
        model_name=str(config.model.get("name", config.model["_target_"])),
        make=make,
        load=load,
        data=data,
        seed=config.seed,
        layers=dict(sorted(layers.items(), key=lambda item: item[1].index)),
        populations={layer.name: population for population in found for layer in population.layers},
        choices=_choices(alphas, found, config, biases),
        skipped=skipped,
    )
    _require_distinct(drawn)
    return drawn


def _require_all(model: Any, layers: Mapping[str, Layer], skipped: Mapping[str, str]) -> None:
    """A model is made of draws of all its layers."""
    names = [key.removesuffix(".weight") for key in model.state_dict() if key.endswith(".weight")]
    missing = [name for name in names if name not in layers]
    if missing:
        why = skipped.get(missing[0], "not among layers=")
        raise UserError(f"A model is drawn whole, and {missing[0]} cannot be measured ({why}): choose another size.")


def _require_distinct(drawn: FromPool) -> None:
    """A row knows its model by what it is made of: one that two ranges share would be missing from one of them."""
    first: dict[str, Choice] = {}
    for choice in drawn.choices:
        other = first.setdefault(drawn.checkpoint(choice), choice)
        if other is not choice:
            raise UserError(
                f"A model with alpha in {choice.alpha_range} is made of the same draws as one in {other.alpha_range}: "
                "give ranges that do not overlap, or a results folder to each of them."
            )


def _choices(
    alphas: Mapping[str, NDArray[np.float64]], found: Sequence[Population], config: Config, biases: Sequence[str]
) -> list[Choice]:
    """The models of each range, with each of the biases."""
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
                Choice(replicate=replicate, alpha_range=f"[{low:g}, {high:g}]", biases=each, draws=mine)
                for each in biases
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
