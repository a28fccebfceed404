"""The spectral metrics of every layer of given models: a trial a layer, nothing trained, nothing evaluated."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from raylab import spectral
from raylab.errors import UserError
from raylab.experiments.attempt import attempt
from raylab.experiments.metrics import metrics_of
from raylab.experiments.study import Study, common
from raylab.layers import measurable, size_columns, weights
from raylab.models.sources import ACCEPTED, Source, of_model
from raylab.registry import bind, call
from raylab.types import (
    Group,
    Layer,
    Outcome,
    SpectralOptions,
    Trial,
    TrialResult,
    Value,
)

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int, "origin": str}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to be measured."""

    name: str  # unique in the experiment
    origin: str
    checkpoint: str  # digest of its weights
    open: Callable[[], Any]  # the model, opened again wherever it is measured: hundreds do not lie in memory at once
    layers: Mapping[str, Layer]
    skipped: Mapping[str, tuple[Layer, str]]  # by name: the layer, and why it is not measured


@dataclass(frozen=True, kw_only=True)
class Spectra(Study):
    """The experiment, with every model opened and every name resolved."""

    subjects: Mapping[str, Subject]  # by the digest of their weights

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        return self._identity()

    @property
    def columns(self) -> Mapping[str, type]:
        """Every value a row may carry."""
        return {**COLUMNS, **spectral.columns(self.metrics, self.options)}

    @property
    def skipped(self) -> Mapping[str, str]:
        """Of all models, "layer" or "model: layer" -> why it is left out. Each has a row that says so too."""
        alone = len(self.subjects) == 1
        return {
            layer if alone else f"{subject.name}: {layer}": reason
            for subject in self.subjects.values()
            for layer, (_, reason) in subject.skipped.items()
        }

    def trials(self) -> list[Trial]:
        """Each layer of each model, in the order of the model."""
        return [trial for checkpoint in self.subjects for trial in self._trials_of(checkpoint)]

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        """Which models, and how many layers of each are to be measured."""
        found = {}
        for checkpoint, subject in self.subjects.items():
            todo = sum(trial.checkpoint == checkpoint and trial.layer in subject.layers for trial in pending)
            found[f"model {subject.name}"] = f"{subject.origin}; {todo:,} layers to measure"
        return found

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """Layers that are solved together, the most expensive first; those that are not measured all at once."""
        made: list[Group] = []
        for checkpoint, subject in self.subjects.items():
            mine = {str(trial.layer): trial for trial in pending if trial.checkpoint == checkpoint}
            layers = [subject.layers[name] for name in mine if name in subject.layers]
            made += [tuple(mine[layers[i].name] for i in batch) for batch in spectral.batches(layers, self.options)]
            made += [tuple(trial for name, trial in mine.items() if name in subject.skipped)]
        return [group for group in made if group]

    def costs(self, groups: Sequence[Group]) -> Sequence[float]:
        """Multiplications of the Gram matrices, which the eigenvalues take as many times again."""
        return [sum(map(self._cost, group)) for group in groups]

    def _cost(self, trial: Trial) -> float:
        layer = self.subjects[trial.checkpoint].layers.get(trial.layer or "")
        return spectral.gram_cost(layer, self.options) if layer else 0.0

    def run(self, group: Group) -> Iterator[Outcome]:
        """Read the layers of a group and measure them here: what is small is sent, the rows, and not the weights."""
        subject = self.subjects[group[0].checkpoint]
        tensors = _tensors(_Opening(subject.checkpoint, self.options.split, subject.open, self.options))
        measured = [trial for trial in group if trial.layer in subject.layers]
        together = self._together(measured, subject, tensors)
        for trial in group:
            if trial in together:
                yield Outcome(together[trial])
            else:
                yield attempt(trial, lambda t=trial: Outcome(self._alone(t, subject, tensors)))

    def _together(
        self, trials: Sequence[Trial], subject: Subject, tensors: Mapping[str, Any]
    ) -> dict[Trial, TrialResult]:
        """The results of several layers at once; none if there is one layer, or one that fails: each is then alone."""
        if len(trials) < 2:
            return {}
        layers = [subject.layers[str(trial.layer)] for trial in trials]
        seeds = [_seed(trial) for trial in trials]
        start = time.perf_counter()
        try:
            items = [(tensors[layer.name], layer) for layer in layers]
            rows = spectral.measure_many(items, self.metrics, self.options, seeds)
        except Exception:
            return {}
        seconds = (time.perf_counter() - start) / len(trials)
        return {
            trial: replace(self._measured(trial, layer, subject, row), seconds=seconds)
            for trial, layer, row in zip(trials, layers, rows, strict=True)
        }

    def _alone(self, trial: Trial, subject: Subject, tensors: Mapping[str, Any]) -> TrialResult:
        name = str(trial.layer)
        if name in subject.skipped:
            layer, reason = subject.skipped[name]
            return TrialResult(trial, "skipped", self._about(layer, subject), error=reason)
        layer = subject.layers[name]
        return self._measured(
            trial, layer, subject, spectral.measure(tensors[name], layer, self.metrics, self.options, _seed(trial))
        )

    def _measured(self, trial: Trial, layer: Layer, subject: Subject, values: Mapping[str, Value]) -> TrialResult:
        """A layer without a power law has failed, as for raylab.analyze; what else is known of it is kept."""
        reason = spectral.why_failed(values)
        about = self._about(layer, subject)
        return TrialResult(trial, "failed" if reason else "ok", {**about, **values}, error=reason)

    def _about(self, layer: Layer, subject: Subject) -> dict[str, Value]:
        about: dict[str, Value] = {"layer_index": layer.index, "kind": layer.kind, "origin": subject.origin}
        return about | size_columns(layer, self.options.conv, self.options.groups)

    def _trials_of(self, checkpoint: str) -> list[Trial]:
        subject = self.subjects[checkpoint]
        places = {name: layer.index for name, layer in subject.layers.items()}
        places |= {name: layer.index for name, (layer, _) in subject.skipped.items()}
        return [
            self._trial(model=subject.name, checkpoint=checkpoint, layer=layer)
            for layer in sorted(places, key=lambda name: places[name])
        ]


def build(config: Config) -> Spectra:
    """The experiment of a config. Raises UserError for a model, name or option that is not there."""
    metrics = metrics_of(config, COLUMNS)
    make = bind({key: value for key, value in config.model.items() if key != "name"}, "model")
    subjects: dict[str, Subject] = {}
    for source in _sources(make, config.model):
        subject = _subject(source, config, {other.name for other in subjects.values()})
        if twin := subjects.get(subject.checkpoint):
            raise UserError(f"{subject.name} and {twin.name} have the same weights: name one of them.")
        subjects[subject.checkpoint] = subject
    return Spectra(
        **common(config, metrics, make),
        subjects=subjects,
    )


def _sources(make: Any, model: Mapping[str, Any]) -> list[Source]:
    """What `model._target_` gives, for each of the sources if `model.source` is a list of them."""
    given = model.get("source")
    if given is None and "source" in model:
        raise UserError(f"experiment=spectra needs a model: give model=PATH_OR_NAME, {ACCEPTED}.")
    if not isinstance(given, (list, tuple)):
        return [_opened(call(make, model, "model"), model)]
    if not given:
        raise UserError("model.source is an empty list: name a file, a folder or a model.")
    return [_opened(call(make, model, "model", source=one), model) for one in given]


def _opened(made: Any, model: Mapping[str, Any]) -> Source:
    """A user's function may give a torch module or a state dict."""
    if isinstance(made, Source):
        return made
    return of_model(str(model.get("name") or type(made).__name__), made, str(model["_target_"]))


def _subject(source: Source, config: Config, taken: set[str]) -> Subject:
    layers, skipped = measurable(source.model, config.spectral, config.layers)
    if not layers:
        why = f": {skipped[0].layer.name}, {skipped[0].reason}" if skipped else ""
        raise UserError(f"No layer of {source.name} can be measured{why}.")
    number = next(
        n for n in range(1, len(taken) + 2) if (f"{source.name} ({n})" if n > 1 else source.name) not in taken
    )
    return Subject(
        name=source.name if number == 1 else f"{source.name} ({number})",
        origin=source.origin,
        checkpoint=source.digest,
        open=_Reopened(source.reopen) if source.reopen else _InMemory(source.model),
        layers={layer.name: layer for layer in layers},
        skipped={item.layer.name: (item.layer, item.reason) for item in skipped},
    )


def _seed(trial: Trial) -> int:
    return int(trial.rng("spectrum").integers(2**63))


@dataclass(frozen=True)
class _Opening:
    """What decides which tensors a model has, and how to come by them."""

    checkpoint: str
    split: bool
    open: Callable[[], Any] = field(compare=False)
    options: SpectralOptions = field(compare=False)


_one_at_a_time = threading.Lock()  # threads that begin together would open a model each, and hold it as many times


def _tensors(opening: _Opening) -> Mapping[str, Any]:
    """The tensors of a model by layer, as the model stores them."""
    with _one_at_a_time:
        return _opened_last(opening)


@functools.lru_cache(maxsize=1)  # a worker does many groups of one model, and gets the experiment anew with each
def _opened_last(opening: _Opening) -> Mapping[str, Any]:
    return weights(opening.open(), opening.options)


@dataclass(frozen=True)
class _InMemory:
    """A model that cannot be opened again: it travels."""

    model: Any

    def __call__(self) -> Any:
        return self.model


@dataclass(frozen=True)
class _Reopened:
    make: Callable[[], Source]

    def __call__(self) -> Any:
        return self.make().model
