"""Models that were trained with alpha fixed, epoch by epoch, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.report.untrained import lower_end
from raylab.results import frame

FREE = "free"  # the retraction that is none
Values = NDArray[np.float64]  # (E, n): E epochs from the first, n models; NaN where a model has not come so far


@dataclass(frozen=True)
class Course:
    """What became of the models of one range of alpha under one retraction."""

    retraction: str
    alpha_range: str
    epochs: NDArray[np.float64]  # (E,)
    accuracy: Values  # [%]
    train_loss: Values  # [nats]
    alpha: Mapping[str, Values]  # by layer
    alpha_float32: Mapping[str, Values]  # of the weights before their spectrum was restored

    @property
    def last(self) -> int:
        """The place of the last epoch that every model has come to."""
        whole = np.isfinite(self.accuracy).all(axis=1)
        return int(np.flatnonzero(whole)[-1]) if whole.any() else 0

    @property
    def drift(self) -> float:
        """The largest |alpha - alpha at the first epoch| over layers, models and epochs."""
        return _largest(self.alpha, self.alpha)

    @property
    def drift_float32(self) -> float:
        """The same of the float32 weights that steps leave: what alpha would do if the spectrum were not restored."""
        return _largest(self.alpha_float32, self.alpha)

    def reached(self, goal: float) -> int | None:
        """The first epoch whose mean accuracy is at least so many per cent."""
        means = mean_of(self.accuracy)[0]
        there = np.flatnonzero(means[: self.last + 1] >= goal)
        return int(self.epochs[there[0]]) if len(there) else None


def _largest(values: Mapping[str, Values], first: Mapping[str, Values]) -> float:
    moved = [np.abs(each - first[layer][:1]) for layer, each in values.items()]
    finite = [each[np.isfinite(each)] for each in moved]
    return max((float(each.max()) for each in finite if len(each)), default=np.nan)


def mean_of(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over models and its standard error of (E, n), each (E,); NaN where there is none."""
    n = np.isfinite(values).sum(axis=1)
    total = np.nansum(values, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, total / n, np.nan)
        spread = np.nansum(np.square(values - mean[:, None]), axis=1) / (n - 1)
        return mean, np.where(n > 1, np.sqrt(spread / n), np.nan)


def courses(results: pa.Table) -> list[Course]:
    """The courses of the rows that are ok: retractions as they come, free training last, ranges in rising order."""
    retractions, ranges = frame.texts(results, "retraction"), frame.texts(results, "alpha_range")
    names = sorted(dict.fromkeys(retractions[retractions != ""]), key=lambda name: name == FREE)
    found = []
    for name in names:
        for within in sorted(set(ranges[retractions == name]), key=lower_end):
            rows = results.filter(pa.array((retractions == name) & (ranges == within)))
            found += _course(name, within, rows)
    return found


def _course(retraction: str, within: str, rows: pa.Table) -> list[Course]:
    whole = frame.select(rows, "", None)
    if not whole.num_rows:
        return []
    epochs, models = (np.unique(frame.floats(whole, name)) for name in ("epoch", "replicate"))

    def spread(some: pa.Table, column: str) -> Values:
        values = np.full((len(epochs), len(models)), np.nan)
        epoch, model = frame.floats(some, "epoch"), frame.floats(some, "replicate")
        known = np.isin(epoch, epochs) & np.isin(model, models)
        places = np.searchsorted(epochs, epoch[known]), np.searchsorted(models, model[known])
        values[places] = frame.floats(some, column)[known]
        return values

    layers = {layer: frame.select(rows, layer, None) for layer in frame.layers(rows)}
    return [
        Course(
            retraction,
            within,
            epochs,
            100 * spread(whole, "accuracy"),
            spread(whole, "train_loss"),
            {layer: spread(some, "alpha") for layer, some in layers.items()},
            {layer: spread(some, "alpha_float32") for layer, some in layers.items()},
        )
    ]


def numbers(found: Sequence[Course]) -> pa.Table:
    """A row an epoch of a course: n, accuracy [%], training loss and alpha by layer, with standard errors."""
    rows = []
    for each in found:
        columns = {"accuracy": each.accuracy, "train_loss": each.train_loss}
        columns |= {f"alpha_{layer}": values for layer, values in each.alpha.items()}
        means = {name: mean_of(values) for name, values in columns.items()}
        for at, epoch in enumerate(each.epochs):
            row = {"retraction": each.retraction, "alpha_range": each.alpha_range, "epoch": int(epoch)}
            row["n"] = int(np.isfinite(each.accuracy[at]).sum())
            for name, (mean, sem) in means.items():
                row |= {name: float(mean[at]), f"{name}_sem": float(sem[at])}
            rows.append(row)
    return pa.Table.from_pylist(rows)
