"""Layers as they are initialised, drawn thousands of times and measured.

Figure 2, left, of "Efficacy of data-free metrics": which alphas a layer has before any training.

Layers of one shape and one law are one population, drawn once for all of them. Draw k of a population is the same
whatever else is drawn, and whichever model asks for it: `raylab.experiments.initial_models` makes models of such draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from raylab import spectral
from raylab.errors import UserError
from raylab.experiments.metrics import metrics_of
from raylab.experiments.study import Study, common
from raylab.layers import measurable, parameters_of, size_columns
from raylab.models.initial_laws import laws_of
from raylab.models.networks import Network
from raylab.registry import bind, call
from raylab.types import Array, Group, Layer, Outcome, Trial, TrialResult, digest, generator

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {
    **{"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int, "law": str, "stands_for": str},
}
INITIAL = "initial"  # what is done to a layer: nothing but its initialisation
UNKNOWN = "how it is initialised is not known"
DRAWS_A_GROUP = 50  # about a second of work: a 512 x 512 layer takes 20 ms
Draw = Callable[[np.random.Generator], Array]


@dataclass(frozen=True, kw_only=True)
class Population:
    """All layers of one shape that are initialised alike."""

    layers: tuple[Layer, ...]
    law: str
    draw: Draw

    @property
    def layer(self) -> Layer:
        """The first of them, which stands for all."""
        return self.layers[0]

    @property
    def stands_for(self) -> str:
        """The names of all."""
        return ", ".join(layer.name for layer in self.layers)

    @functools.cached_property
    def digest(self) -> str:
        """Of what a generator makes of it: two with the same draws are one."""
        return digest([self.layer.shape, _sample(self.draw)])

    def drawn(self, seed: int, k: int) -> Array:
        """Its k-th draw."""
        return self.draw(generator(seed, self.digest, INITIAL, k))


class Initial(NamedTuple):
    """How a layer is initialised."""

    law: Hashable  # compared by value; str() is for a person, and rounds
    draw: Draw


@dataclass(frozen=True, kw_only=True)
class InitialLayers(Study):
    """The experiment, with every name resolved."""

    model_name: str
    populations: Mapping[str, Population]  # by digest
    draws: int
    skipped: Mapping[str, str]  # layer -> why it is left out

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        return self._identity()

    @property
    def columns(self) -> Mapping[str, type]:
        """Every value a row may carry."""
        return {**COLUMNS, **spectral.columns(self.metrics, self.options)}

    def trials(self) -> list[Trial]:
        """The draws of each population in turn: more of them leave the first as they are."""
        firsts = [
            self._trial(model=self.model_name, checkpoint=key, layer=population.layer.name, perturbation=INITIAL)
            for key, population in self.populations.items()
        ]
        return [replace(first, draw=k) for first in firsts for k in range(self.draws)]

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        """How often each kind of layer is drawn."""
        left = dict.fromkeys(self.populations, 0)
        for trial in pending:
            left[trial.checkpoint] += 1
        return {
            f"population {population.layer.name}": (
                f"{' x '.join(map(str, population.layer.shape))}, {population.law}, "
                f"for {population.stands_for}; {left[key]:,} draws to measure"
            )
            for key, population in self.populations.items()
        }

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """So many draws of one population each."""
        made: list[Group] = []
        for _, of_one in groupby(pending, key=lambda trial: trial.checkpoint):
            trials = list(of_one)
            made += [tuple(trials[k : k + DRAWS_A_GROUP]) for k in range(0, len(trials), DRAWS_A_GROUP)]
        return made

    def costs(self, groups: Sequence[Group]) -> Sequence[float]:
        """Multiplications of the Gram matrices, which the eigenvalues take as many times again."""
        of = {name: spectral.gram_cost(each.layer, self.options) for name, each in self.populations.items()}
        return [len(group) * of[group[0].checkpoint] for group in groups]

    def run(self, group: Group) -> Iterator[Outcome]:
        """Draw and measure here: what is small is sent, the rows, and not the weights."""
        drawn = [self._drawn(trial) for trial in group]
        yield from map(Outcome, self.measure(drawn))

    def _drawn(self, trial: Trial) -> Outcome:
        population = self.populations[trial.checkpoint]
        layer = population.layer
        about = {"layer_index": layer.index, "kind": layer.kind, "law": population.law}
        about |= {"stands_for": population.stands_for}
        values = about | size_columns(layer, self.options.conv, self.options.groups)
        return Outcome(TrialResult(trial, "ok", values), layer, population.drawn(trial.seed, trial.draw))


def build(config: Config) -> InitialLayers:
    """The experiment of a config. Raises UserError for a model, layer or option that is not there."""
    metrics = metrics_of(config, COLUMNS)
    make = bind({key: value for key, value in config.model.items() if key != "name"}, "model")
    populations, skipped = populations_of(call(make, config.model, "model"), config)
    return InitialLayers(
        **common(config, metrics, make),
        model_name=str(config.model.get("name", config.model["_target_"])),
        populations={population.digest: population for population in populations},
        draws=config.draws,
        skipped=skipped,
    )


def populations_of(made: Any, config: Config) -> tuple[list[Population], dict[str, str]]:
    """The populations that the layers of a model are drawn from, and why other layers are left out."""
    module = made.module() if isinstance(made, Network) else made
    layers, outside = measurable(module, config.spectral, config.layers)
    skipped = {item.layer.name: item.reason for item in outside}
    alike: dict[tuple[Any, ...], list[tuple[Layer, Initial]]] = {}
    for layer, initial in _laws(made, module, layers, config, skipped).items():
        how = (layer.kind, layer.groups) if len(layer.shape) > 2 else ()  # a matrix is one, whatever it is for
        alike.setdefault((initial.law, layer.shape, how), []).append((layer, initial))
    populations = [
        Population(layers=tuple(layer for layer, _ in same), law=str(same[0][1].law), draw=same[0][1].draw)
        for same in alike.values()
    ]
    if not populations:
        why = next(iter(skipped.items()), None)
        raise UserError(f"No layer of this model can be drawn{f': {why[0]}, {why[1]}' if why else ''}.")
    return populations, skipped


def _laws(
    made: Any, module: Any, layers: Sequence[Layer], config: Config, skipped: dict[str, str]
) -> dict[Layer, Initial]:
    """How each layer is initialised; why one is left out goes into `skipped`."""
    if hasattr(made, "initial_law"):
        return {layer: _of_own(made.initial_law(layer, "weight")) for layer in layers}
    known = laws_of(made.anew) if isinstance(made, Network) and made.anew else {}
    found: dict[Layer, Initial] = {}
    for layer, parameters in zip(layers, parameters_of(module, layers, config.spectral), strict=True):
        law = known.get(parameters.weight) if parameters else None
        if parameters is None or law is None or law.constant:
            skipped[layer.name] = UNKNOWN if law is None else f"always initialised as {law}"
        elif parameters.part is None or law.entries_alike:
            shape = parameters.part.shape if parameters.part else tuple(module.get_parameter(parameters.weight).shape)
            found[layer] = Initial(law, functools.partial(law.draw, shape=shape))
        else:
            skipped[layer.name] = f"a part of a tensor that is {law} as a whole"
    return found


def _sample(draw: Draw) -> str:
    """What a law makes of one and the same generator: laws that differ in any digit differ here."""
    return draw(generator(0, "which law is it?")).tobytes().hex()


@dataclass(frozen=True)
class _Own:
    """A law of a model of one's own, which may be any function: it is known by what it draws."""

    law: Any = field(compare=False)
    draws: str

    def __str__(self) -> str:
        return str(self.law)


def _of_own(law: Draw) -> Initial:
    return Initial(_Own(law, digest([_sample(law)])), law)
