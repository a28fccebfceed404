"""One sample or group, worked in a process of Ray Tune's: what comes of each epoch is reported with a checkpoint."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

from ray import tune
from ray.tune import Checkpoint

from raylab import redact
from raylab.cluster.inline import OUTCOMES_AT_ONCE
from raylab.errors import UserError, what_happened
from raylab.places import Place
from raylab.types import Experiment, Group, Outcome, Trial, TrialResult, Value

TICK_SECONDS = 2.0  # rows wait at most so long for the end of their epoch
ROWS, PLAN, FAILED = "raylab_rows", "raylab_plan", "raylab_failed"  # on their way to the driver in Tune's results
EPOCH, LEFT = "epoch", "epochs_left"
REPORTED = ".reported.json"  # in a checkpoint of Tune's: what the driver has heard of

# Epoch and metric of each whole model's trial that has a row; empty for other trials that have one.
Known = Mapping[str, Mapping[str, float]]
Open = Callable[[Mapping[str, Any]], "tuple[Experiment, Group, Mapping[str, Value]]"]


class SampleError(Exception):
    """A sample whose rows failed: the message is the first error."""


def work(params: dict[str, Any], *, open_: Open, known: Known, metric: str, session: str) -> None:
    """One sample, in a process of Tune's."""
    told: dict[str, Any] = {metric: float("nan")}
    experiment, group, values = _opened(params, open_, told)
    reporter = _Reporter(experiment, group, values, metric, session)
    known = {**known, **reporter.resume()}
    tune.report({**told, PLAN: group, LEFT: reporter.epochs_left})
    reporter.replay(known)
    pending = tuple(trial for trial in group if trial.id not in known)
    error = None
    try:
        if pending:
            for outcome in experiment.run(pending):
                reporter.take(outcome)
    except Exception as failure:
        error = what_happened(failure)
    finally:
        experiment.release()
    reporter.close(pending, error)


def _opened(
    params: Mapping[str, Any], open_: Open, told: Mapping[str, Any]
) -> tuple[Experiment, Group, Mapping[str, Value]]:
    try:
        return open_(params)
    except UserError as error:
        _give_up(told, str(error))
    except Exception as error:
        _give_up(told, what_happened(error))


def _give_up(last: Mapping[str, Any], error: str) -> NoReturn:
    tune.report({**last, FAILED: redact.text(error)})  # Tune keeps it on disk
    raise SampleError(redact.text(error)) from None


class _Reporter:
    """Outcomes of a group to results of Tune, one an epoch, with their rows and a checkpoint."""

    def __init__(
        self, experiment: Experiment, group: Group, values: Mapping[str, Value], metric: str, session: str
    ) -> None:
        self._experiment, self._values, self._metric, self._session = experiment, values, metric, session
        chunks = epochs(group)
        self._open = [{trial.id for trial in chunk} for chunk in chunks]
        self._next = 0  # the first epoch that Tune has not heard of
        self._epoch_of = {trial.id: place for place, chunk in enumerate(chunks) for trial in chunk}
        self._numbers: list[dict[str, float]] = [{} for _ in self._open]
        self._unheard = set(self._epoch_of)
        self._whole = {trial.id for trial in group if trial.layer is None}
        self._weights = {trial.checkpoint for trial in group}
        self._last: dict[str, Any] = {metric: float("nan")}
        self._reported: dict[str, dict[str, float]] = {}
        self._waiting: list[Outcome] = []
        self._since = time.monotonic()
        self._error: str | None = None

    @property
    def epochs_left(self) -> int:
        """How many Tune has not heard of."""
        return len(self._open) - self._next

    def resume(self) -> Known:
        """Take over Tune's checkpoint, if there is one; what this driver has heard of before the worker was lost."""
        checkpoint = tune.get_checkpoint()
        place = _kept(self._experiment)
        if checkpoint is None or place is None:
            return {}
        with checkpoint.as_directory() as kept:
            there = {REPORTED, *place.names()}
            for path in Path(kept).iterdir():
                if path.name not in there:
                    content = path.read_bytes()
                    place.replace(path.name, lambda file, content=content: file.write(content))
            said = json.loads((Path(kept) / REPORTED).read_text())
        # Another driver has heard of it, and was perhaps killed before the rows were on disk.
        self._reported = said["trials"] if said["session"] == self._session else {}
        return self._reported

    def replay(self, known: Known) -> None:
        """Tell Tune of the epochs that have rows."""
        for trial in self._unheard & known.keys():
            self._note(trial, known[trial])
        self._unheard -= known.keys()
        self._go_on()

    def take(self, outcome: Outcome) -> None:
        """One more outcome; told at the end of its epoch, or when it has waited."""
        self._waiting.append(outcome)
        place = self._epoch_of[outcome.result.trial.id]
        over = self._open[place] <= {waiting.result.trial.id for waiting in self._waiting}
        if over or len(self._waiting) >= OUTCOMES_AT_ONCE or time.monotonic() - self._since > TICK_SECONDS:
            self._tell()

    def close(self, pending: Sequence[Trial], error: str | None) -> None:
        """Tell the rest; trials of which nothing was told have failed. Raises SampleError where anything went wrong.

        error: what the work ended with; None: as it should.
        """
        try:
            self._tell()
        except Exception as failure:
            error = error or what_happened(failure)
        if self._unheard:
            error = error or "the worker ended without a result for this trial"
        rows = [TrialResult(trial, "failed", {}, error=error) for trial in pending if trial.id in self._unheard]
        if error := self._error or error:
            _give_up({**self._last, LEFT: self.epochs_left, ROWS: self._labelled(rows)}, error)

    def _tell(self) -> None:
        outcomes, self._waiting, self._since = self._waiting, [], time.monotonic()
        if not outcomes:
            return
        results = self._labelled(self._experiment.measure(outcomes))
        for result in results:
            name = result.trial.id
            if result.status == "failed":
                self._error = self._error or result.error or "no reason given"
                self._note(name, {})
                continue
            self._reported[name] = _numbers(result.values, (EPOCH, self._metric)) if name in self._whole else {}
            self._note(name, self._reported[name])
        self._go_on(results)

    def _note(self, trial: str, numbers: Mapping[str, float]) -> None:
        place = self._epoch_of[trial]
        self._open[place].discard(trial)
        self._numbers[place] |= numbers

    def _go_on(self, results: Sequence[TrialResult] = ()) -> None:
        """Tell Tune of these rows and of each epoch that is over now, in their order."""
        while self._next < len(self._open) and not self._open[self._next]:
            last = self._last | self._numbers[self._next]
            with self._checkpoint(results) as checkpoint:
                tune.report({**last, LEFT: self.epochs_left - 1, ROWS: results}, checkpoint=checkpoint)
            self._last, self._next = last, self._next + 1  # only now has Tune heard of it
            self._heard(results)
            results = ()
        if results:
            told = {key: value for key, value in self._last.items() if key != EPOCH}  # no epoch is over: not for ASHA
            tune.report({**told, LEFT: self.epochs_left, ROWS: results})
            self._heard(results)

    def _heard(self, results: Sequence[TrialResult]) -> None:
        self._unheard -= {result.trial.id for result in results}

    def _labelled(self, results: Sequence[TrialResult]) -> list[TrialResult]:
        return [replace(result, values={**result.values, **self._values}) for result in results]

    @contextmanager
    def _checkpoint(self, results: Sequence[TrialResult]) -> Iterator[Any]:
        """With new rows, the files that the experiment keeps of its weights: a worker may not see this disk."""
        place = _kept(self._experiment)
        kept = [name for name in place.names() if name.startswith(tuple(self._weights))] if place and results else []
        if place is None or not kept:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="raylab-") as copy:
            for name in kept:
                with suppress(FileNotFoundError):  # an equal sample has gone on, and needs it no more
                    (Path(copy) / name).write_bytes(place.read(name))
            said = {"session": self._session, "trials": self._reported}
            (Path(copy) / REPORTED).write_text(json.dumps(said))
            yield Checkpoint.from_directory(copy)


def epochs(group: Group) -> list[Group]:
    """The trials of a model, an epoch each: from one of the whole model up to the next, or after one up to the next."""
    chunks: list[list[Trial]] = [[]]
    first = bool(group) and group[0].layer is None
    for trial in group:
        if first and trial.layer is None and chunks[-1]:
            chunks.append([])
        chunks[-1].append(trial)
        if not first and trial.layer is None:
            chunks.append([])
    return [tuple(chunk) for chunk in chunks if chunk]


def _kept(experiment: Experiment) -> Place | None:
    """Where an experiment keeps what it goes on from; None where it keeps nothing."""
    checkpoints = getattr(experiment, "checkpoints", None)
    return None if checkpoints is None else checkpoints.place


def _numbers(values: Mapping[str, Value], names: Sequence[str]) -> dict[str, float]:
    return {name: float(value) for name in names if isinstance(value := values.get(name), Real)}
