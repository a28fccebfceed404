"""How much work is left, by what rows that are there already took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from raylab.results import frame, parts
from raylab.types import Trial, TrialResult

COLUMNS = ("layer", "perturbation", "status", "seconds")
Kind = tuple[str, ...]


class Estimate(NamedTuple):
    """Seconds of work left, over all workers, and how many rows say so."""

    seconds: float
    rows: int


def of_folder(folder: parts.Where, pending: Sequence[Trial]) -> Estimate | None:
    """The work left in a results folder, without a lock; None where nothing is pending or no row is there.

    Raises UserError for a damaged part.
    """
    if not pending or not parts.names(folder):
        return None
    return left(parts.load(folder, COLUMNS), pending)


def left(table: pa.Table, pending: Iterable[Trial]) -> Estimate | None:
    """The sum of the mean seconds of rows like each pending trial; None without rows that are ok.

    Alike are rows of the same layer and perturbation; where there is none, of the same perturbation of any layer; else
    all rows. Of a model that is walked from its first layer to its last the latter two say too much: early layers,
    which come first, cost the most.
    """
    means = Means.of(table)
    if not means.rows:
        return None
    nearest = (means.nearest(_kinds(trial.layer or "", trial.perturbation)) for trial in pending)
    return Estimate(sum(filter(None, nearest)), means.rows)


class Means:
    """Mean seconds of rows that are alike, as they come in."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[Kind, tuple[float, int]] = {}

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """Those of the rows of a table (COLUMNS) that are ok."""
        means, table = cls(), frame.ok(table)
        columns = (frame.texts(table, "layer"), frame.texts(table, "perturbation"), frame.floats(table, "seconds"))
        for layer, perturbation, seconds in zip(*columns, strict=True):
            means.note(layer, perturbation, seconds)
        return means

    def note(self, layer: str, perturbation: str, seconds: float) -> None:
        """One more row."""
        if np.isfinite(seconds):
            self.rows += 1
            for kind in _kinds(layer, perturbation):
                total, count = self._sums.get(kind, (0.0, 0))
                self._sums[kind] = total + seconds, count + 1  # at once: other threads look on

    def nearest(self, kinds: Sequence[Kind]) -> float | None:
        """Of the first of these that there is; None without one."""
        found = next((self._sums[kind] for kind in kinds if kind in self._sums), None)
        return found and found[0] / found[1]


def _kinds(layer: str, perturbation: str) -> list[Kind]:
    """What a row is like, the nearest likeness first. The whole model is like no layer."""
    return [(layer, perturbation), ("of a layer", perturbation, "any"), ()] if layer else [("", perturbation), ()]


class Work:
    """The work left of a run that is going on, by the seconds of rows like it: earlier runs' and those that come in.

    The rate of trials would not tell: where a model is trained for minutes before its layers are measured in no time,
    or where early layers cost the most, the first trials say little of the others.
    """

    def __init__(self, folder: parts.Where, pending: Sequence[Trial]) -> None:
        self._pending = Counter((trial.layer or "", trial.perturbation) for trial in pending)
        self._means = Means.of(parts.load(folder, COLUMNS)) if pending and parts.names(folder) else Means()
        self.done = 0.0  # seconds, of this run

    def learn(self, result: TrialResult) -> None:
        """One more trial is done."""
        trial = result.trial
        self._pending[trial.layer or "", trial.perturbation] -= 1
        self.done += result.seconds
        if result.status == "ok":
            self._means.note(trial.layer or "", trial.perturbation, result.seconds)

    def left(self) -> float | None:
        """Seconds, over all workers; None as long as there is no row like one of the trials."""
        total = 0.0
        for (layer, perturbation), count in list(self._pending.items()):  # asked by other threads
            mean = self._means.nearest(_kinds(layer, perturbation)[:-1])
            if count > 0 and mean is None:
                return None
            total += max(count, 0) * (mean or 0.0)
        return total
