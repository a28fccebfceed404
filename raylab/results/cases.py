"""The cases that metrics are judged by: one is a layer of a model, perturbed once, and what that cost the model.

Shapes: n cases, k metrics, m models, l layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.errors import UserError
from raylab.results import differences, frame, schema
from raylab.types import ORIGINAL

Float = NDArray[np.float64]
HALF = "half"  # the label by the share of the accuracy that is left
ROUNDING = 1e-9  # a cost that is a threshold up to rounding is within it


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What makes a case robust: the model loses no more of the target than a threshold. Else it is critical."""

    target: str = "accuracy"
    better: int = 1  # 1: more of the target is better; -1: less
    thresholds: Sequence[float] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # costs, in units of the target
    main: float = 0.1  # the one that a verdict is given by

    def labels(self) -> list[tuple[str, float]]:
        """Every way to label: a cost; of an accuracy also that half of it is left."""
        costs = [(f"cost at most {each:g}", each) for each in dict.fromkeys([*self.thresholds, self.main])]
        return costs + ([(HALF, np.nan)] if self.better > 0 else [])


@dataclass(frozen=True)
class Cases:
    """A results table as arrays: rows of perturbed layers, and each layer of each model as it was trained."""

    metrics: Sequence[str]
    groups: Sequence[str]  # of the metrics' columns: similarity, spectral, own
    layers: Sequence[str]
    x: Float  # (n, k); NaN where a metric has no finite value
    cost: Float  # (n,); in units of the target, negative where it helped; NaN without a baseline
    left: Float  # (n,); the target less nothing, as a share of the unperturbed model's
    layer: NDArray[np.intp]  # (n,)
    model: NDArray[np.intp]  # (n,)
    perturbation: NDArray[Any]  # (n,)
    trained: Float  # (m, l, k)

    @classmethod
    def of(cls, table: pa.Table, criterion: Criterion) -> Cases:
        """Of all rows that are ok. Raises UserError if the target is no column."""
        if criterion.target not in table.column_names:
            raise UserError(f"No column '{criterion.target}': a verdict on metrics needs rows that were evaluated.")
        if "trial_id" in table.column_names:  # rows lie in the order in which they finished; no sum may depend on it
            table = table.sort_by("trial_id")
        table = frame.ok(table) if "status" in table.column_names else table
        layers, names = frame.layers(table), frame.texts(table, "layer")
        place = {name: at for at, name in enumerate(layers)}
        layer = np.array([place.get(name, -1) for name in names], dtype=np.intp)
        original = frame.texts(table, "perturbation") == ORIGINAL
        rows = np.flatnonzero((layer >= 0) & ~original)
        metrics, x = _measured(table, layer >= 0)
        model, whole = frame.codes(table, *frame.MODEL), _whole(table, criterion.target, layer < 0, original)
        value = frame.floats(table, criterion.target)
        with np.errstate(divide="ignore", invalid="ignore"):
            cost, left = criterion.better * (whole - value), value / whole
        as_trained = (layer >= 0) & original
        return cls(
            metrics=metrics,
            groups=[schema.group(table.schema.field(name)) for name in metrics],
            layers=layers,
            x=x[rows],
            cost=cost[rows],
            left=left[rows],
            layer=layer[rows],
            model=model[rows],
            perturbation=frame.texts(table, "perturbation")[rows],
            trained=means(x[as_trained], model[as_trained], layer[as_trained], (_count(model), len(layers))),
        )

    @property
    def models(self) -> int:
        """How many trained models there are."""
        return self.trained.shape[0]

    def perturbed(self, perturbation: str) -> Float:
        """Mean over draws of each layer of each model under one perturbation, (m, l, k)."""
        rows = self.perturbation == perturbation
        return means(self.x[rows], self.model[rows], self.layer[rows], (self.models, len(self.layers)))

    def robust(self, label: tuple[str, float]) -> NDArray[np.bool_]:
        """Which cases are robust by that label, (n,)."""
        return self.left >= 0.5 if label[0] == HALF else self.cost <= label[1] + ROUNDING

    def mean_cost(self, perturbation: str) -> Float:
        """What perturbing a layer so costs on average over models, (l,); NaN where it was not done."""
        rows = self.perturbation == perturbation
        size = (self.models, len(self.layers))
        return nanmean(means(self.cost[rows, None], self.model[rows], self.layer[rows], size)[..., 0])


def means(values_nk: Float, model: NDArray[np.intp], layer: NDArray[np.intp], size: tuple[int, int]) -> Float:
    """Mean of the finite values of each model and layer, (m, l, k); NaN where there is none."""
    finite, total = np.isfinite(values_nk), np.zeros((*size, values_nk.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, (model, layer), np.where(finite, values_nk, 0.0))
    np.add.at(count, (model, layer), finite)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def nanmean(values: Float) -> Float:
    """Mean of the finite values along the first axis; NaN where there is none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _measured(table: pa.Table, inside: NDArray[np.bool_]) -> tuple[list[str], Float]:
    """The metrics that have a value in some layer, and their columns, (rows, k); NaN for what is not finite."""
    columns = {name: frame.floats(table, name) for name in schema.metric_columns(table.schema)}
    columns = {name: values for name, values in columns.items() if np.isfinite(values[inside]).any()}
    x = np.stack([*columns.values()], axis=1) if columns else np.zeros((table.num_rows, 0))
    return list(columns), np.where(np.isfinite(x), x, np.nan)


def _whole(table: pa.Table, target: str, whole: NDArray[np.bool_], original: NDArray[np.bool_]) -> Float:
    """The unperturbed model's target for each row, evaluated alike: its own row's, else its unperturbed layers'."""
    values, codes = frame.floats(table, target), frame.codes(table, *differences.SAME)

    def mean(rows: NDArray[np.bool_]) -> Float:
        rows = rows & np.isfinite(values)
        size = _count(codes)
        total, count = (np.bincount(codes[rows], each, minlength=size) for each in (values[rows], None))
        return np.divide(total, count, out=np.full(size, np.nan), where=count > 0)

    own, of_layers = mean(whole), mean(original)
    return np.where(np.isfinite(own), own, of_layers)[codes]


def _count(codes: NDArray[np.intp]) -> int:
    return int(codes.max(initial=-1)) + 1
