"""Columns of a results table as numpy arrays, and means over models."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raylab.types import ORIGINAL

# In the order in which they are shown; others follow by name.
CONDITIONS = (ORIGINAL, "reinit", "rerandomize", "reinit_signs", "permute")
MODEL = ("experiment", "model", "replicate", "checkpoint")  # what tells two trained models apart


class Mean(NamedTuple):
    """A mean over models, the standard error of that mean (NaN for a single model), and the number of models."""

    mean: float
    sem: float
    n: int


def floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column, NaN where it is null; all NaN where there is no such column."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return table[name].cast(pa.float64(), safe=False).to_numpy().astype(np.float64)


def texts(table: pa.Table, name: str) -> NDArray[Any]:
    """A column as text, "" where it is null; all "" where there is no such column."""
    if name not in table.column_names:
        return np.full(table.num_rows, "", dtype=object)
    return np.asarray(pc.fill_null(table[name].cast(pa.string()), "").to_pylist(), dtype=object)


def codes(table: pa.Table, *names: str) -> NDArray[np.intp]:
    """A running number for each distinct combination of these columns' values, one a row."""
    if not table.num_rows:
        return np.zeros(0, dtype=np.intp)
    columns = np.stack([np.unique(texts(table, name), return_inverse=True)[1].ravel() for name in names], axis=1)
    return np.unique(columns, axis=0, return_inverse=True)[1].ravel()


def layers(table: pa.Table) -> list[str]:
    """Names of the layers, in the order of the forward pass."""
    names, places = texts(table, "layer"), floats(table, "layer_index")
    order: dict[str, float] = {}
    for name, place in zip(names, np.where(np.isnan(places), np.inf, places), strict=True):
        if name:
            order[name] = min(order.get(name, np.inf), place)
    return sorted(order, key=lambda name: (order[name], name))


def conditions(table: pa.Table) -> list[str]:
    """Perturbations of layers that the table has, trained originals first."""
    found = set(texts(table, "perturbation")[texts(table, "layer") != ""])
    return [name for name in CONDITIONS if name in found] + sorted(found - set(CONDITIONS))


def ok(table: pa.Table) -> pa.Table:
    """The rows that have results."""
    return table.filter(pa.array(texts(table, "status") == "ok"))


def select(table: pa.Table, layer: str | None, condition: str | None) -> pa.Table:
    """Rows of one layer ("" for the baselines) and one perturbation; None is any."""
    keep = np.ones(table.num_rows, dtype=bool)
    if layer is not None:
        keep &= texts(table, "layer") == layer
    if condition is not None:
        keep &= texts(table, "perturbation") == condition
    return table.filter(pa.array(keep))


def by_layer(table: pa.Table, column: str, condition: str) -> dict[str, NDArray[np.float64]]:
    """The finite values of a column under one perturbation by layer, in the order of the forward pass."""
    values, names = floats(table, column), texts(table, "layer")
    inside = (texts(table, "perturbation") == condition) & np.isfinite(values)
    found = {name: values[inside & (names == name)] for name in layers(table)}
    return {name: each for name, each in found.items() if len(each)}


def mean_of(values: NDArray[np.float64]) -> Mean:
    """Mean and standard error of those numbers that are finite."""
    values = values[np.isfinite(values)]
    sem = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Mean(float(values.mean()) if len(values) else np.nan, float(sem), len(values))


def mean_over_draws(table: pa.Table, column: str) -> Mean:
    """Mean and standard error over all rows, for a table of a single model; n is the number of draws."""
    return mean_of(floats(table, column))


def geometric_mean(table: pa.Table, column: str) -> Mean:
    """Geometric mean over all rows of a column of positive numbers; infinite ones count: they have overflown."""
    values = floats(table, column)
    values = values[values > 0]
    return Mean(float(np.exp(np.log(values).mean())) if len(values) else np.nan, np.nan, len(values))


def one_model(table: pa.Table) -> bool:
    """Whether all rows are of a single model: draws are then what a mean is over."""
    return bool(codes(table, *MODEL).max(initial=0) == 0)


def count_models(table: pa.Table) -> int:
    """How many models there are. Where rows are of epochs, each with other weights, those of the first count."""
    epoch = floats(table, "epoch")
    first = ~(epoch > np.nanmin(epoch, initial=np.inf))
    return len(np.unique(codes(table, *MODEL)[first]))


def mean_over_models(table: pa.Table, column: str) -> Mean:
    """Mean of a column, the draws of one model averaged first. Rows without a finite value do not count."""
    values = floats(table, column)
    finite = np.isfinite(values)
    models = np.unique(codes(table, *MODEL)[finite], return_inverse=True)[1]
    return mean_of(np.bincount(models, values[finite]) / np.bincount(models))
