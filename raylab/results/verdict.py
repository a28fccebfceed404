"""A verdict on every metric: does it tell how good a model is? Three questions, as numbers with uncertainty.

Paper 1 ("Efficacy of data-free metrics") asks them of layers that are perturbed one at a time:
(a) invariance: a robust layer that is re-initialised leaves the model as good as it was. By how much does the metric
    move, in units of its own standard deviation over trained models?
(b) robust_critical: does it tell cases that cost little from those that cost much? Area under the ROC curve (AUC).
(c) reinit_rerandomize: does it tell a layer given its initial weights back, which keep most of the accuracy, from one
    given fresh weights of the same law, which do not? AUC over pairs of the same layer.
A metric can answer (b) by telling layers apart, of which some are robust and some critical whatever is done to them:
beside the AUC of all cases, standardised within each layer, stands that over pairs of cases of the same layer. Two
groups that are apart make a correlation by themselves: beside (c) stands Spearman's rho with the target within each.

Every column that measures a layer is judged, a user's own as well. An AUC is the probability that the metric puts a
robust case above a critical one (or a re-initialised layer above a re-randomised one), by the direction that the field
takes for good; where there is none, higher counts as better, and an AUC below .5 is no worse than one above.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from raylab.results import rank, roc
from raylab.results.cases import Cases, Criterion
from raylab.results.correlate import MIN_ROWS, MIN_UNITS, USABLE, Resampling, correlate
from raylab.results.shift import Shift, spread
from raylab.types import digest

Float = NDArray[np.float64]
# Martin and Mahoney take a small alpha and small norms for quality (Paper 2); the less a perturbed layer differs from
# itself, the better. Of the others the field does not say.
LOWER_IS_BETTER = frozenset({
    "alpha", "alpha_hat", "log_alpha_norm", "log_norm", "frobenius_norm", "spectral_norm", "log_spectral_norm",
    "sigma_max", "activation_disagreement", "js_divergence",
})  # fmt: skip
HIGHER_IS_BETTER = frozenset({"linear_cka"})
INVARIANCE, ROBUST, GROUPS, WITHIN = "invariance", "robust_critical", "reinit_rerandomize", "within_group"
STANDARDISED, RAW, WITHIN_LAYERS = "standardised", "raw", "within"
_TEXTS: Mapping[str, str] = {
    "metric": "column that is judged",
    "group": "similarity (needs data), spectral (needs none), or own",
    "better": "direction that the field takes for good: lower, higher, or empty (higher is then counted as better)",
    "question": f"{INVARIANCE}, {ROBUST}, {GROUPS}, or {WITHIN} (correlation with the target within one group)",
    "scope": "of the shift: which perturbation, absolute or signed; of the AUC: standardised within each layer over "
    "trained models, raw, or within (over pairs of cases of the same layer); of the correlation: within which group",
    "label": "what makes a case robust (for the shift: a layer, on average over models)",
}
_NUMBERS: Mapping[str, str] = {
    "threshold": "cost that a robust case stays within, in units of the target; NaN where the label is another",
    "estimate": "shift [standard deviations over trained models], AUC [0 to 1], or Spearman's rho [-1 to 1]",
    "lo": "lower end of the bootstrap interval, in the unit of the estimate",
    "hi": "upper end of that interval",
}
_COUNTS: Mapping[str, str] = {
    "n": "cases, or pairs of a layer before and after, that the estimate is made of [count]",
    "n_robust": "those of them that are robust, or re-initialised [count]",
    "n_layers": "layers that take part [count]",
    "n_units": "units that the bootstrap resamples [count]",
}
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), metadata={"description": text}) for name, text in _TEXTS.items()),
        pa.field("headline", pa.bool_(), metadata={"description": "whether the verdict is given by this row"}),
        *(pa.field(name, pa.float64(), metadata={"description": text}) for name, text in _NUMBERS.items()),
        *(pa.field(name, pa.int64(), metadata={"description": text}) for name, text in _COUNTS.items()),
        pa.field("unit", pa.string(), metadata={"description": "what the bootstrap resamples: model, or layer"}),
        pa.field("status", pa.string(), metadata={"description": "ok, partial (some layers), or why there is none"}),
    ]
)
Row = dict[str, Any]
_NOTHING: Row = {
    **dict.fromkeys(("estimate", "lo", "hi", "threshold"), np.nan), **dict.fromkeys(_COUNTS, 0), "label": "",
    "headline": False, "unit": "",
}  # fmt: skip
_REASONS = ("constant_metric", "too_few", "one_class", "no_values")  # the first that a layer has


def verdict(
    table: pa.Table,
    criterion: Criterion | None = None,
    correlations: pa.Table | None = None,
    resampling: Resampling | None = None,
) -> pa.Table:
    """The three questions about every metric that has a value in some layer; a table of SCHEMA.

    `criterion`: what a robust case is. `correlations`: of this table with the criterion's target, where the caller has
    them. Intervals: percentiles of a bootstrap that resamples whole models; of a single model, whole layers. Which
    layers are robust, and the mean and standard deviation that a score is standardised by, are those of all rows in
    every replica. What cannot be computed is NaN and a status. Raises UserError if the target is no column.
    """
    criterion = criterion or Criterion()
    cases = Cases.of(table, criterion)
    if not cases.metrics:
        return SCHEMA.empty_table()
    found = _Found(cases, criterion, resampling or Resampling())
    if correlations is None:
        names = {name: (name,) for name in ("reinit", "rerandomize")}
        correlations = correlate(table, criterion.target, cases.metrics, names, found.resampling)
    within = _within(correlations, set(cases.perturbation))
    rows: list[Row] = []
    with threadpool_limits(limits=1):  # as in correlate: the products are small
        shifts = found.shifts()
        for at, metric in enumerate(cases.metrics):
            better = "lower" if metric in LOWER_IS_BETTER else "higher" if metric in HIGHER_IS_BETTER else ""
            head = {"metric": metric, "group": cases.groups[at], "better": better}
            made = [*shifts[at], *found.robust_critical(at, better), found.groups(at, better)]
            for name in ("reinit", "rerandomize"):
                row = {"question": WITHIN, "scope": name, "headline": True, "status": f"no_{name}"}
                made.append(_NOTHING | row | within.get((metric, name), {}))
            rows += [head | row for row in made]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _within(correlations: pa.Table, perturbations: set[str]) -> dict[tuple[str, str], Row]:
    """Mean over layers of rho within one group, by metric and group."""
    alone = next(iter(perturbations)) if len(perturbations) == 1 else "all"  # a single one has no name of its own
    return {
        (row["metric"], alone if row["condition"] == "all" else row["condition"]): {
            "estimate": row["rho"], "lo": row["rho_lo"], "hi": row["rho_hi"], "n": row["n"], "unit": row["unit"],
            "n_units": row["n_units"], "status": row["status"],
        }
        for row in correlations.to_pylist()
        if row["scope"] == "mean"
    }  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """The answers, metric by metric; `at` is the metric's place."""

    cases: Cases
    criterion: Criterion
    resampling: Resampling

    @property
    def unit(self) -> str:
        return "model" if self.cases.models > 1 else "layer"

    @cached_property
    def units(self) -> NDArray[np.intp]:
        return self.cases.model if self.unit == "model" else self.cases.layer

    @cached_property
    def weights(self) -> Float:
        """How often each unit is drawn, (B, units): the same for every number, so that they can be compared."""
        m = self.cases.models if self.unit == "model" else len(self.cases.layers)
        rng = np.random.default_rng([self.resampling.seed, int(digest(["verdict", self.unit]), 16)])
        return rng.multinomial(m, np.full(m, 1 / max(m, 1)), size=self.resampling.bootstrap).astype(float)

    # -- (a) -----------------------------------------------------------------------------------------------------------

    def shifts(self) -> list[list[Row]]:
        """How far each metric moves when a robust layer is re-initialised, and when the same one is re-randomised."""
        label = f"cost at most {self.criterion.main:g}"
        robust = np.flatnonzero(self.cases.mean_cost("reinit") <= self.criterion.main)
        rows: list[list[Row]] = [[] for _ in self.cases.metrics]
        for name in ("reinit", "rerandomize"):
            moved = Shift.of(self.cases, name, robust, self.weights) if self.unit == "model" else None
            for at, each in enumerate(rows):
                status = self._no_shift(name, robust) or (moved.status(at) if moved else "")
                for scope, absolute in ((name, True), (f"{name}_signed", False)):
                    row = {"question": INVARIANCE, "scope": scope, "label": label, "threshold": self.criterion.main}
                    row |= {"headline": scope == "reinit", "unit": "model", "status": status}
                    usable = moved is not None and status in USABLE
                    each.append(_NOTHING | row | (moved.row(at, absolute, self.resampling) if moved and usable else {}))
        return rows

    def _no_shift(self, name: str, robust: NDArray[np.intp]) -> str:
        for needed in ("reinit", name):
            if needed not in self.cases.perturbation:
                return f"no_{needed}"
        if self.unit != "model":
            return "one_model"
        return "" if len(robust) else "no_robust_layer"

    # -- (b) -----------------------------------------------------------------------------------------------------------

    def robust_critical(self, at: int, better: str) -> Iterator[Row]:
        """The AUC by every label: standardised within each layer, raw, and over pairs of cases of the same layer."""
        raw = self.cases.x[:, at]
        standard, status = self._standardised(at)
        # A similarity is of a layer with itself as it was trained: it comes in one unit for all layers, and has no
        # spread over trained models. Of one model, or of few, there is no spread either.
        as_it_is = self.cases.groups[at] == "similarity" or status in ("no_values", "one_model", "too_few_models")
        across = RAW if as_it_is else STANDARDISED
        for scope, score, why in ((STANDARDISED, standard, status), (RAW, raw, "ok"), (WITHIN_LAYERS, raw, "ok")):
            for label in self.criterion.labels():
                row = {"question": ROBUST, "scope": scope, "label": label[0], "threshold": label[1]}
                row["headline"] = label[0] == self.main[0] and scope in (across, WITHIN_LAYERS)
                robust, valid = self.cases.robust(label), np.isfinite(score) & np.isfinite(self.cases.cost)
                yield _NOTHING | row | self._area(_oriented(score, better), robust, valid, why, scope == WITHIN_LAYERS)

    @cached_property
    def main(self) -> tuple[str, float]:
        """The label that a verdict is given by; the last one (half of the accuracy) if by this all cases are alike."""
        labels = self.criterion.labels()
        main = next(each for each in labels if each[1] == self.criterion.main)
        finite = np.isfinite(self.cases.cost)
        return next((each for each in (main, labels[-1]) if len(set(self.cases.robust(each)[finite])) == 2), main)

    def _standardised(self, at: int) -> tuple[Float, str]:
        """The metric in units of its spread over trained models of that layer, (n,); NaN in layers without one."""
        mean, deviation, status = spread(self.cases.trained[:, :, at])
        found = (self.cases.x[:, at] - mean[self.cases.layer]) / deviation[self.cases.layer]
        used = np.isfinite(self.cases.x[:, at])
        part = status == "ok" and bool((used & ~np.isfinite(found)).any())
        return found, "one_model" if self.cases.models == 1 else "partial" if part else status

    # -- (c) -----------------------------------------------------------------------------------------------------------

    def groups(self, at: int, better: str) -> Row:
        """The AUC for telling re-initialised from re-randomised layers, over pairs of the same layer."""
        row = _NOTHING | {"question": GROUPS, "scope": WITHIN_LAYERS, "headline": True}
        for name in ("reinit", "rerandomize"):
            if name not in self.cases.perturbation:
                return row | {"status": f"no_{name}"}
        score, reinit = _oriented(self.cases.x[:, at], better), self.cases.perturbation == "reinit"
        valid = np.isfinite(score) & (reinit | (self.cases.perturbation == "rerandomize"))
        return row | self._area(score, reinit, valid, "ok", within=True)

    # -- areas ---------------------------------------------------------------------------------------------------------

    def _area(
        self, score: Float, positive: NDArray[np.bool_], valid: NDArray[np.bool_], status: str, within: bool
    ) -> Row:
        """The AUC of these cases, with its interval; `within`: over pairs of the same layer."""
        places = [valid & (self.cases.layer == at) for at in np.unique(self.cases.layer)] if within else [valid]
        why = {_no_area(score[each], positive[each]) for each in places}
        used = [each for each in places if not _no_area(score[each], positive[each])]
        if status not in USABLE or not used:
            used_up = next((each for each in _REASONS if each in why), "no_values")
            return {"status": status if status not in USABLE else used_up}
        rows = np.any(used, axis=0)
        strata = [roc.pairs(score[each], positive[each], self.units[each], self.weights.shape[1]) for each in used]
        units = len(np.unique(self.units[rows]))
        row = {"estimate": roc.area(strata), "n": int(rows.sum()), "n_robust": int((rows & positive).sum())}
        row |= {"n_layers": len(np.unique(self.cases.layer[rows])), "n_units": units, "unit": self.unit}
        row |= {"status": "partial" if len(used) < len(places) else status}
        # An interval is nothing where one kind of case is of a few units only, which most replicas draw alike.
        if min(len(np.unique(self.units[rows & each])) for each in (positive, ~positive)) < MIN_UNITS:
            return row
        if within and self.unit == "layer":
            layers = [int(self.cases.layer[each][0]) for each in used]
            replicas = roc.areas_of_strata(strata, self.weights[:, layers])
        else:
            replicas = roc.areas(strata, self.weights)
        return row | dict(zip(("lo", "hi"), rank.interval(replicas, self.resampling.confidence), strict=True))


def _oriented(score: Float, better: str) -> Float:
    """Higher is better."""
    return -score if better == "lower" else score


def _no_area(score: Float, positive: NDArray[np.bool_]) -> str:
    """Why these cases have no AUC; empty where they have one."""
    if not len(score):
        return "no_values"
    if positive.all() or not positive.any():
        return "one_class"
    if len(score) < MIN_ROWS:
        return "too_few"
    return "constant_metric" if np.ptp(score) == 0 else ""
