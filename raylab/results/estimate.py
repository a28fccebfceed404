"""How much work is left, by what rows that are there already took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raylab.results import frame, parts
from raylab.types import Trial, TrialResult

COLUMNS = ("layer", "perturbation", "status", "seconds")
Kind = tuple[str, ...]


class Estimate(NamedTuple):
    """Seconds of work left, over all workers, and how many rows say so."""

    seconds: float
    rows: int


def of_folder(folder: parts.Where) -> Means:
    """What the rows of a results folder took, without a lock. Raises UserError for a damaged part."""
    means = Means()
    if parts.names(folder):
        means.take(parts.load(folder, COLUMNS))
    return means


def left(means: Means, pending: Sequence[Trial]) -> Estimate | None:
    """The sum of the mean seconds of rows like each pending trial; None without rows that are ok, or such a trial.

    Alike are rows of the same layer and perturbation; where there is none, of the same perturbation of any layer; else
    all rows. Of a model that is walked from its first layer to its last the latter two say too much: early layers,
    which come first, cost the most.
    """
    if not means.rows or not pending:
        return None
    nearest = (means.nearest(_kinds(trial.layer or "", trial.perturbation)) for trial in pending)
    return Estimate(sum(filter(None, nearest)), means.rows)


class Means:
    """Mean seconds of rows that are alike, as they come in. Of rows that are ok only."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[Kind, tuple[float, int]] = {}

    def take(self, table: pa.Table) -> None:
        """The rows of a table that has COLUMNS."""
        table = frame.ok(table)
        table = table.filter(pc.is_finite(table["seconds"]))  # type: ignore[attr-defined]
        alike = table.group_by(["layer", "perturbation"]).aggregate([("seconds", "sum"), ("seconds", "count")])
        for each in alike.to_pylist():
            self._add(each["layer"] or "", each["perturbation"], each["seconds_sum"], each["seconds_count"])

    def note(self, result: TrialResult) -> None:
        """One more row."""
        if result.status == "ok" and math.isfinite(result.seconds):
            self._add(result.trial.layer or "", result.trial.perturbation, result.seconds, 1)

    def _add(self, layer: str, perturbation: str, seconds: float, rows: int) -> None:
        self.rows += rows
        for kind in _kinds(layer, perturbation):
            total, count = self._sums.get(kind, (0.0, 0))
            self._sums[kind] = total + seconds, count + rows  # at once: other threads look on

    def nearest(self, kinds: Sequence[Kind]) -> float | None:
        """Of the first of these that there is; None without one."""
        found = next((self._sums[kind] for kind in kinds if kind in self._sums), None)
        return found and found[0] / found[1]


def _kinds(layer: str, perturbation: str) -> list[Kind]:
    """What a row is like, the nearest likeness first. The whole model is like no layer."""
    return [(layer, perturbation), ("of a layer", perturbation, "any"), ()] if layer else [("", perturbation), ()]


class Work:
    """The work left of a run that is going on, by the seconds of rows like it: those known (`means`) and those to come.

    The rate of trials would not tell: where a model is trained for minutes before its layers are measured in no time,
    or where early layers cost the most, the first trials say little of the others.
    """

    def __init__(self, means: Means, pending: Iterable[Trial]) -> None:
        self._pending = Counter((trial.layer or "", trial.perturbation) for trial in pending)
        self._means = means
        self.done = 0.0  # seconds, of this run

    def learn(self, result: TrialResult) -> None:
        """One more trial is done."""
        trial = result.trial
        self._pending[trial.layer or "", trial.perturbation] -= 1
        self.done += result.seconds
        self._means.note(result)

    def left(self) -> float | None:
        """Seconds, over all workers; None as long as there is no row like one of the trials."""
        total = 0.0
        for (layer, perturbation), count in list(self._pending.items()):  # asked by other threads
            mean = self._means.nearest(_kinds(layer, perturbation)[:-1])
            if count > 0 and mean is None:
                return None
            total += max(count, 0) * (mean or 0.0)
        return total
