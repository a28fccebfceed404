"""Models that were trained with alpha fixed, epoch by epoch, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.report.samples import told
from raylab.report.untrained import lower_end
from raylab.results import frame, searched

FREE = "free"  # the retraction that is none
MODEL = ("seed", "replicate")  # what tells models apart that are trained alike; their checkpoints tell epochs apart too
Values = NDArray[np.float64]  # (E, n): E epochs from the first, n models; NaN where a model has not come so far


@dataclass(frozen=True)
class Course:
    """What became of the models of one range of alpha under one retraction; of a search, those of one sample."""

    retraction: str
    alpha_range: str
    sample: str  # of a search, the values that were tried: "learning_rate=0.01"
    epochs: NDArray[np.float64]  # (E,)
    accuracy: Values  # [%]
    train_loss: Values  # [nats]
    alpha: Mapping[str, Values]  # by layer
    alpha_float32: Mapping[str, Values]  # of the weights before their spectrum was restored

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return ", ".join(filter(None, (self.retraction, self.alpha_range, self.sample)))

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
            found += [course for sample, some in _samples(rows) for course in _course(name, within, sample, some)]
    return found


def _samples(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each sample of a search, by the values that were tried; all of them where nothing was searched."""
    keys = [name for name in searched.columns(rows.schema) if name not in ("retractions", "ranges")]
    which = frame.codes(rows, *keys) if keys else np.zeros(rows.num_rows, dtype=np.intp)
    for code in range(int(which.max(initial=-1)) + 1):
        some = rows.filter(pa.array(which == code))
        values = {key: some[key][0].as_py() for key in keys}
        words = (f"{k}={told(v)}" for k, v in values.items() if v is not None)
        yield ", ".join(words), some


def _course(retraction: str, within: str, sample: str, rows: pa.Table) -> list[Course]:
    name, model, epoch = frame.texts(rows, "layer"), frame.codes(rows, *MODEL), frame.floats(rows, "epoch")
    whole = name == ""
    if not whole.any():
        return []
    epochs, models = np.unique(epoch[whole]), np.unique(model[whole])

    def spread(some: NDArray[np.bool_], column: str) -> Values:
        values = np.full((len(epochs), len(models)), np.nan)
        known = some & np.isin(epoch, epochs) & np.isin(model, models)
        places = np.searchsorted(epochs, epoch[known]), np.searchsorted(models, model[known])
        values[places] = frame.floats(rows, column)[known]
        return values

    layers = {layer: name == layer for layer in frame.layers(rows)}
    return [
        Course(
            retraction,
            within,
            sample,
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
            row |= {"sample": each.sample} if each.sample else {}
            row["n"] = int(np.isfinite(each.accuracy[at]).sum())
            for name, (mean, sem) in means.items():
                row |= {name: float(mean[at]), f"{name}_sem": float(sem[at])}
            rows.append(row)
    return pa.Table.from_pylist(rows)
