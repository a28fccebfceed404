"""Models made of measured draws: every layer's alpha lies, untrained, in a range.

By rejection from the draws that an experiment of kind initial_layers has measured: they are shared by all ranges, all
models and all layers of one shape, and are made anew here from their generators. A model takes the first draws that
fit and that no model of its range has; so model k is the same however many there are, wherever it is made.
"""

from __future__ import annotations

import functools
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
ALPHA_OPTIONS = ("estimator", "small_sample", "threshold", "threshold_kind")  # by which a matrix has another alpha


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one model is made of."""

    replicate: int
    alpha_range: str
    biases: str  # "drawn", or "zero"
    draws: Mapping[str, int]  # layer -> which draw of its population

    def checkpoint(self, populations: Mapping[str, Population]) -> str:
        """Digest of all that determines the weights but the seed, and the replicate, whose biases they are."""
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
    acceptance: Mapping[str, str]  # range of alpha and layers -> how many draws of the pool lie in it, for the plan
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
    draws = pool.draws(config.pool, INITIAL, config.seed)
    _require_same_alpha(config.pool, config)
    wanted = _wanted(draws, found, config)
    _require_draws(wanted, draws, config)
    _require_enough(wanted, config)
    drawn = FromPool(
        model_name=str(config.model.get("name", config.model["_target_"])),
        make=make,
        load=load,
        data=data,
        seed=config.seed,
        layers=dict(sorted(layers.items(), key=lambda item: item[1].index)),
        populations={layer.name: population for population in found for layer in population.layers},
        choices=_choices(wanted, config.models, biases),
        acceptance={each.what: each.accepted for each in wanted},
        skipped=skipped,
    )
    _require_distinct(drawn)
    return drawn


def _require_same_alpha(folder: str, config: Config) -> None:
    """A draw that was chosen by another alpha than its model is measured by lies in no range. Raises UserError."""
    there = pool.spectral_options(folder)
    for key in ALPHA_OPTIONS:
        mine = getattr(config.spectral, key)
        if there.get(key, mine) != mine:
            raise UserError(
                f"pool={folder} was measured with spectral.{key}={there[key]}, and this experiment measures with "
                f"{mine}: give spectral.{key}={there[key]}, or a pool of its own."
            )


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


@dataclass(frozen=True)
class _Wanted:
    """What the models of one range take of one population."""

    population: Population
    low: float
    high: float
    draws: pool.Draws
    models: int

    @property
    def many(self) -> int:
        """Draws that are taken: one a layer and model."""
        return self.models * len(self.population.layers)

    @functools.cached_property
    def fitting(self) -> NDArray[np.intp]:
        """The numbers of the draws that can be."""
        return self.draws.within(self.low, self.high)

    @property
    def within(self) -> str:
        """The range, as rows have it."""
        return f"[{self.low:g}, {self.high:g}]"

    @property
    def shape(self) -> str:
        """Of the layers, the longer side first."""
        return _by(sorted(self.population.layer.shape, reverse=True))

    @property
    def what(self) -> str:
        """For the plan."""
        return f"pool of {self.shape} in {self.within}"

    @property
    def accepted(self) -> str:
        """The rate of acceptance, in words."""
        drawn = len(self.draws.alpha)
        share = f"{100 * len(self.fitting) / drawn:.2f} %" if drawn else "none"
        return f"{share} of {drawn:,} draws accepted, {self.many:,} of {len(self.fitting):,} taken"

    @property
    def enough(self) -> int:
        """How many draws of the population are likely to have as many as are taken."""
        drawn = len(self.draws.alpha)
        if not len(self.fitting):
            return 10 * drawn
        return int(np.ceil(1.1 * self.many * drawn / len(self.fitting) / 500) * 500)

    @property
    def seconds(self) -> float:
        """Of work for those that are still to be drawn."""
        return (self.enough - len(self.draws.alpha)) * self.draws.seconds


def _wanted(draws: Mapping[str, pool.Draws], found: Sequence[Population], config: Config) -> list[_Wanted]:
    """What each range takes of each population."""
    return [
        _Wanted(population, low, high, draws.get(population.digest, pool.NONE), config.models)
        for low, high in _ranges(config.ranges)
        for population in found
    ]


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def _require_draws(wanted: Sequence[_Wanted], draws: Mapping[str, pool.Draws], config: Config) -> None:
    """Draws of another model are of no use. Raises UserError."""
    for each in wanted:
        if not len(each.draws.alpha):
            there = ", ".join(sorted({_by(one.shape) for one in draws.values()}))
            raise UserError(
                f"pool={config.pool} has draws of {there}, and this model takes {each.shape} "
                f"({each.population.stands_for}), initialised as {each.population.law}: give the model that the pool "
                "is of, or draw this one's layers with `python -m raylab.run experiment=alpha_at_init model.width=... "
                "model.inputs=... results=ANOTHER_FOLDER`."
            )


def _require_enough(wanted: Sequence[_Wanted], config: Config) -> None:
    """All that is missing is asked for at once. Raises UserError."""
    short = [each for each in wanted if len(each.fitting) < each.many]
    if not short:
        return
    worst = max(short, key=lambda each: each.enough)
    minutes = sum({each.shape: each.seconds for each in sorted(short, key=lambda each: each.enough)}.values()) / 60
    raise UserError(
        f"{config.models} models with alpha in {worst.within} take {worst.many} draws of {worst.shape}, and "
        f"{len(worst.fitting)} of the {len(worst.draws.alpha):,} in pool={config.pool} are: "
        f"`{pool.command(str(config.pool), worst.enough)}` is likely to have enough, after about "
        f"{max(1, round(minutes))} min of work."
    )


def _choices(wanted: Sequence[_Wanted], models: int, biases: Sequence[str]) -> list[Choice]:
    """The models of each range, with each of the biases."""
    made = []
    for within in dict.fromkeys(each.within for each in wanted):
        draws: dict[str, NDArray[np.intp]] = {}
        for each in (each for each in wanted if each.within == within):
            layers = each.population.layers
            draws |= {layer.name: each.fitting[k :: len(layers)] for k, layer in enumerate(layers)}
        for replicate in range(models):
            mine = {name: int(fitting[replicate]) for name, fitting in draws.items()}
            made += [Choice(replicate=replicate, alpha_range=within, biases=kind, draws=mine) for kind in biases]
    return made


def _ranges(given: Sequence[Any]) -> list[tuple[float, float]]:
    """Pairs of numbers. Raises UserError for anything else."""
    pairs = []
    for each in given:
        if not (isinstance(each, (list, tuple)) and len(each) == 2 and all(isinstance(x, (int, float)) for x in each)):
            raise UserError(f"ranges={given} must be pairs of numbers, such as ranges=[[2,6],[10,12]].")
        if not each[0] < each[1]:
            low, high = sorted(each)
            advice = f"write [{low}, {high}]" if low < high else "a range goes up, as [2, 6] does"
            raise UserError(f"ranges={given}: {each[0]} is not less than {each[1]}: {advice}.")
        pairs.append((float(each[0]), float(each[1])))
    if not pairs:
        raise UserError("ranges=[] names no range of alpha: give ranges=[[2,6],[10,12]].")
    return pairs
