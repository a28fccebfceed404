"""How well each metric goes along with accuracy: per layer, on average over layers, and pooled.

Every number has its n, a bootstrap confidence interval and a permutation p-value, and stands beside the same number
within each condition: two well separated groups alone make a strong rho (Simpson's paradox).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from raylab.errors import UserError
from raylab.results import frame, rank, schema
from raylab.types import ORIGINAL, digest

USABLE = ("ok", "partial")  # status of a correlation that has numbers
MIN_ROWS = 4  # fewer say nothing: status "too_few"
MIN_UNITS = 5  # a bootstrap over fewer models says nothing: no confidence interval
STATISTICS = ("rho", "rho_lo", "rho_hi", "rho_p", "tau", "tau_lo", "tau_hi", "tau_p", "rmse", "r2")
SCHEMA = pa.schema(
    [
        pa.field("metric", pa.string()),
        pa.field("target", pa.string(), metadata={"description": "what the metric is held against"}),
        pa.field("scope", pa.string(), metadata={"description": "layer, mean (over layers) or pooled (all layers)"}),
        pa.field("layer", pa.string()),
        pa.field("condition", pa.string(), metadata={"description": "all perturbed rows, or which perturbations"}),
        pa.field("n", pa.int64(), metadata={"description": "rows that the numbers are made of"}),
        pa.field("n_excluded", pa.int64(), metadata={"description": "rows failed, skipped or without a finite value"}),
        *(pa.field(name, pa.float64()) for name in STATISTICS),
        pa.field("status", pa.string(), metadata={"description": "ok, partial (some layers), too_few, constant_..."}),
        pa.field("unit", pa.string(), metadata={"description": "what the bootstrap resamples: model, layer or row"}),
        pa.field("n_units", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals and p-values are made."""

    bootstrap: int = 1000  # replicas; 0: no intervals
    permutations: int = 1000  # 0: no p-values
    confidence: float = 0.95
    seed: int = 0


def correlate(
    table: pa.Table,
    target: str = "accuracy",
    metrics: Sequence[str] | None = None,
    conditions: Mapping[str, Sequence[str]] | None = None,
    resampling: Resampling | None = None,
) -> pa.Table:
    """Spearman rho, Kendall tau-b, RMSE and R^2 of `target` against every metric; a table of SCHEMA.

    `metrics`: columns, by default all that measure a layer and have a value. `conditions`: name -> perturbations taken
    together, by default all, reinit+rerandomize (as in Paper 1), and each alone. Intervals: percentiles of a bootstrap
    that resamples whole models (layers, where all rows are of one model). p: two-sided, rows exchangeable; in the mean
    over layers one permutation serves all layers, so that what layers share is kept; pooled rows of one model change
    places with their whole layer, whose draws are alike. Rows that failed or have no
    finite value are left out and counted. Raises UserError if the target is no column.
    """
    if "trial_id" in table.column_names:  # rows lie in the order in which they finished; no replica may depend on it
        table = table.sort_by("trial_id")
    names = list(metrics) if metrics is not None else _measured(table)
    for name in (target, *names):
        if name not in table.column_names:
            raise UserError(f"No column '{name}' to correlate. Available: {', '.join(_measured(table))}.")
    data = _Data.of(table, target, names, resampling or Resampling())
    rows: list[dict[str, Any]] = []
    # The products are small: threads of the BLAS would spend their time waiting for each other.
    with threadpool_limits(limits=1):
        for condition, perturbations in (conditions or default_conditions(table)).items():
            inside = np.isin(data.perturbation, list(perturbations)) & (data.layer >= 0)
            rows += _condition(data, inside, condition)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def default_conditions(table: pa.Table) -> dict[str, tuple[str, ...]]:
    """All perturbations together, Paper 1's two together, and each alone."""
    found = [name for name in frame.conditions(table) if name != ORIGINAL]
    pair = ("reinit", "rerandomize")
    together: dict[str, tuple[str, ...]] = {"all": tuple(found)} if found else {}
    if len(found) > 2 and set(pair) <= set(found):
        together["+".join(pair)] = pair
    return together | ({name: (name,) for name in found} if len(found) > 1 else {})


def _measured(table: pa.Table) -> list[str]:
    return [name for name in schema.metric_columns(table.schema) if np.isfinite(frame.floats(table, name)).any()]


@dataclass(frozen=True)
class _Data:
    """The table as arrays, one entry a row."""

    target: str
    metrics: Sequence[str]
    layers: Sequence[str]
    resampling: Resampling
    x: NDArray[np.float64]  # (rows, metrics); NaN where a row is not ok
    y: NDArray[np.float64]
    layer: NDArray[np.intp]  # place in `layers`; -1 for the baseline
    perturbation: NDArray[Any]
    model: NDArray[np.intp]
    case: NDArray[np.intp]  # same model, perturbation and draw: the same case seen in several layers

    @classmethod
    def of(cls, table: pa.Table, target: str, metrics: Sequence[str], resampling: Resampling) -> _Data:
        bad = frame.texts(table, "status") != "ok" if "status" in table.column_names else np.zeros(len(table), bool)
        columns = [np.where(bad, np.nan, frame.floats(table, name)) for name in (*metrics, target)]
        layers = frame.layers(table)
        place = {name: at for at, name in enumerate(layers)}
        return cls(
            target=target,
            metrics=metrics,
            layers=layers,
            resampling=resampling,
            x=np.stack(columns[:-1], axis=1) if metrics else np.zeros((len(table), 0)),
            y=columns[-1],
            layer=np.array([place.get(name, -1) for name in frame.texts(table, "layer")], dtype=np.intp),
            perturbation=frame.texts(table, "perturbation"),
            model=frame.codes(table, *frame.MODEL),
            case=frame.codes(table, *frame.MODEL, "perturbation", "draw"),
        )


def _condition(data: _Data, inside: NDArray[np.bool_], condition: str) -> Iterator[dict[str, Any]]:
    """Rows of the result for one condition: per layer, mean over layers, pooled."""
    model, case, layer = (_renumber(each, inside) for each in (data.model, data.case, data.layer))
    many = model.max(initial=0) > 0
    row = _renumber(np.arange(len(inside)), inside)
    one = _Draws(data.resampling, *(("model", model) if many else ("row", case)), case, (condition, "layer"))
    all_ = _Draws(
        data.resampling,
        *(("model", model) if many else ("layer", layer)),
        row if many else layer,
        (condition, "pooled"),
    )
    by_layer = [_cells(data, inside & (data.layer == at), one) for at in range(len(data.layers))]
    pooled = _cells(data, inside, all_)
    for place, metric in enumerate(data.metrics):
        head = {"metric": metric, "target": data.target, "condition": condition}
        cells = [cells[place] for cells in by_layer]
        for name, cell in zip(data.layers, cells, strict=True):
            yield head | {"scope": "layer", "layer": name} | cell.row(data.resampling)
        yield head | {"scope": "mean"} | _mean(cells).row(data.resampling)
        yield head | {"scope": "pooled"} | pooled[place].row(data.resampling)


def _renumber(codes: NDArray[np.intp], inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The same distinctions, numbered from 0 within the rows inside; -1 outside."""
    new = np.full(len(codes), -1, dtype=np.intp)
    new[inside] = np.unique(codes[inside], return_inverse=True)[1].ravel()
    return new


@dataclass(frozen=True)
class _Draws:
    """Where replicas come from. The same stream gives the same weights and permutations in every layer."""

    resampling: Resampling
    unit: str
    units: NDArray[np.intp]  # of every row of the data
    case: NDArray[np.intp]
    stream: tuple[str, str]

    def weights(self) -> NDArray[np.int64]:
        """How often each unit is drawn, (B, m)."""
        m = int(self.units.max(initial=0)) + 1
        return self._rng("bootstrap").multinomial(m, np.full(m, 1 / m), size=self.resampling.bootstrap)

    def orders(self, rows: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Permutations of these rows, (B, n): the order of random keys, one a case, so that its rows stay together."""
        keys = self._rng("permutation").random((self.resampling.permutations, int(self.case.max(initial=0)) + 1))
        case = self.case[rows]
        orders = np.empty((len(keys), len(case)), dtype=np.intp)
        # Case by case, in whichever order the rows lie: what stood together stands together again.
        orders[:, np.argsort(case, kind="stable")] = np.argsort(keys[:, case], axis=1, kind="stable")
        return orders

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.resampling.seed, int(digest([purpose, *self.stream]), 16)])


@dataclass(frozen=True)
class _Cell:
    """One metric in one place: the estimates, and the replicas of rho and tau that intervals and p-values come from."""

    n: int
    n_excluded: int
    status: str
    estimates: Mapping[str, float]
    boot: Mapping[str, NDArray[np.float64]]
    null: Mapping[str, NDArray[np.float64]]
    unit: str = ""
    n_units: int = 0

    def row(self, resampling: Resampling) -> dict[str, Any]:
        """The columns of SCHEMA that are this cell's."""
        row: dict[str, Any] = dict.fromkeys(STATISTICS, np.nan)
        row |= {name: getattr(self, name) for name in ("n", "n_excluded", "status", "unit", "n_units")}
        row |= self.estimates
        for name in ("rho", "tau") if self.estimates else ():
            if self.n_units >= MIN_UNITS:
                row[f"{name}_lo"], row[f"{name}_hi"] = rank.interval(self.boot[name], resampling.confidence)
            row[f"{name}_p"] = rank.two_sided(self.estimates[name], self.null[name])
        return row


def _cells(data: _Data, inside: NDArray[np.bool_], draws: _Draws) -> list[_Cell]:
    """A cell for every metric. Metrics that have values in the same rows are computed together."""
    valid = inside[:, None] & np.isfinite(data.x) & np.isfinite(data.y)[:, None]
    cells: dict[int, _Cell] = {}
    patterns: dict[bytes, list[int]] = {}
    for place in range(len(data.metrics)):
        status = _status(data.x[valid[:, place], place], data.y[valid[:, place]])
        if status == "ok":
            patterns.setdefault(valid[:, place].tobytes(), []).append(place)
        n = int(valid[:, place].sum())
        cells[place] = _Cell(n, int(inside.sum()) - n, status, {}, {}, {})
    for places in patterns.values():
        cells |= _computed(data, places, valid[:, places[0]], int(inside.sum()), draws)
    return [cells[place] for place in range(len(data.metrics))]


def _status(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    if len(x) < MIN_ROWS:
        return "too_few" if len(x) else "no_values"
    if np.ptp(y) == 0:
        return "constant_target"
    return "constant_metric" if np.ptp(x) == 0 else "ok"


def _computed(
    data: _Data, places: list[int], rows: NDArray[np.bool_], total: int, draws: _Draws
) -> Iterator[tuple[int, _Cell]]:
    x, y, units = data.x[rows][:, places], data.y[rows], draws.units[rows]
    rmse, r2 = rank.least_squares(x, y)
    estimates = {"rho": rank.spearman(x, y), "tau": rank.kendall(x, y), "rmse": rmse, "r2": r2}
    boot = rank.bootstrap(x, y, units, draws.weights())
    null = rank.null(x, y, draws.orders(rows))
    for at, place in enumerate(places):
        yield (
            place,
            _Cell(
                n=len(y),
                n_excluded=total - len(y),
                status="ok",
                estimates={name: float(values[at]) for name, values in estimates.items()},
                boot={"rho": boot.rho[:, at], "tau": boot.tau[:, at]},
                null={"rho": null.rho[:, at], "tau": null.tau[:, at]},
                unit=draws.unit,
                n_units=len(np.unique(units)),
            ),
        )


def _mean(cells: Sequence[_Cell]) -> _Cell:
    """The mean over layers of every number, and of every replica: their layers were resampled alike."""
    good = [cell for cell in cells if cell.status == "ok"]
    n, excluded = sum(cell.n for cell in good or cells), sum(cell.n_excluded for cell in cells)
    if not good:
        return _Cell(n, excluded, cells[0].status if cells else "no_values", {}, {}, {})

    def mean(part: str) -> dict[str, Any]:
        return {name: np.mean([getattr(cell, part)[name] for cell in good], axis=0) for name in getattr(good[0], part)}

    return _Cell(
        n=n,
        n_excluded=excluded,
        status="ok" if len(good) == len(cells) else "partial",
        estimates={name: float(value) for name, value in mean("estimates").items()},
        boot=mean("boot"),
        null=mean("null"),
        unit=good[0].unit,
        n_units=min(cell.n_units for cell in good),
    )
