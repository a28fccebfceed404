"""The results of `experiment=fcn_mnist` as every table and figure here reads them: rows, and correlations to print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import published
import pyarrow as pa

from raylab.errors import UserError
from raylab.report import labels
from raylab.report.perturbed import Perturbed
from raylab.report.scoreboard import Scoreboard
from raylab.results import frame, load, rank, read_run_info
from raylab.results.correlate import SCHEMA, correlate
from raylab.results.text import TextTable, number, p_value
from raylab.types import ORIGINAL

PAIR = ("reinit", "rerandomize")  # what the paper correlates
SIGNS = "reinit_signs"
SEPARATION = (
    pa.field("separation_rho", pa.float64(), metadata={"description": "that of telling the two groups apart alone"}),
    pa.field("separation_tau", pa.float64(), metadata={"description": "that of telling the two groups apart alone"}),
    pa.field("published_rho", pa.float64()),
    pa.field("published_tau", pa.float64()),
    pa.field("earlier_rho", pa.float64(), metadata={"description": "seven models of an earlier implementation"}),
)


@dataclass(frozen=True)
class Study:
    """A results folder."""

    rows: pa.Table
    info: dict[str, Any]
    found: dict[tuple, pa.Table] = field(default_factory=dict, repr=False)  # correlations that were asked for

    @classmethod
    def of(cls, folder: str) -> Study:
        """Load it. Raises UserError for a folder without results, or with those of another experiment."""
        rows = load(folder)
        missing = [name for name in PAIR if name not in frame.conditions(rows)]
        if missing or not set(published.LAYERS) <= set(frame.layers(rows)):
            raise UserError(
                f"{folder} has no layers fc1 to fc6 re-initialised and re-randomised: give results of fcn_mnist."
            )
        return cls(rows, read_run_info(folder))

    @cached_property
    def pair(self) -> pa.Table:
        """Rows that are ok: trained, re-initialised, re-randomised."""
        return self.under(*PAIR)

    @cached_property
    def scores(self) -> Scoreboard:
        """The verdict on every metric, over rows of every condition."""
        return Perturbed(self.rows).scores

    def under(self, *conditions: str) -> pa.Table:
        """Rows that are ok: trained, or under these perturbations."""
        ok = frame.ok(self.rows)
        return ok.filter(pa.array(np.isin(frame.texts(ok, "perturbation"), (ORIGINAL, *conditions))))

    def correlations(self, metrics: Sequence[str], *conditions: str) -> pa.Table:
        """correlate() of rows under these perturbations, by default PAIR: "all" of them together, and each alone."""
        key = (*metrics, *(conditions or PAIR))
        if key not in self.found:
            inside = np.isin(frame.texts(self.rows, "perturbation"), (ORIGINAL, *(conditions or PAIR)))
            self.found[key] = correlate(self.rows.filter(pa.array(inside)), metrics=metrics)
        return self.found[key]

    def separation(self, layer: str | None) -> tuple[float, float]:
        """rho and tau of accuracy with whatever tells re-initialised from re-randomised rows, and nothing else.

        `layer`: None is all of them, pooled.
        """
        rows = frame.select(self.pair, layer, None)
        groups, accuracy = frame.texts(rows, "perturbation"), frame.floats(rows, "accuracy")
        inside = np.isin(groups, PAIR) & np.isfinite(accuracy)
        return rank.separated(accuracy[inside], groups[inside] == PAIR[0])

    def mean_separation(self) -> tuple[float, float]:
        """The same within each layer, mean over layers."""
        rho, tau = zip(*map(self.separation, published.LAYERS), strict=True)
        return float(np.mean(rho)), float(np.mean(tau))


def numbers(study: Study, correlations: pa.Table) -> pa.Table:
    """The correlations as they are, with what separation alone gives and what is published beside them."""
    alone = {layer: study.separation(layer) for layer in published.LAYERS}
    alone |= {"mean": study.mean_separation(), "pooled": study.separation(None)}
    rows = correlations.to_pylist()
    for row in rows:
        together = row["condition"] == "all"
        place = alone.get(row["layer"] or row["scope"]) if together else None
        row["separation_rho"], row["separation_tau"] = place or (None, None)
        mean = together and row["scope"] == "mean"
        given = published.CORRELATIONS.get(row["metric"]) if mean else None
        row["published_rho"], row["published_tau"] = given or (None, None)
        row["earlier_rho"] = published.EARLIER_RHO.get(row["metric"]) if mean else None
    return pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, *SEPARATION]))


def by_metric(correlations: pa.Table, scope: str, condition: str = "all") -> dict[str, dict[str, Any]]:
    """Rows of the mean over layers ("mean"), or of all layers pooled, by metric."""
    return {
        row["metric"]: row for row in correlations.to_pylist() if (row["scope"], row["condition"]) == (scope, condition)
    }


def by_place(correlations: pa.Table, metric: str, condition: str = "all") -> dict[str, dict[str, Any]]:
    """Rows of one metric: FC1 to FC6, mean (over layers), pooled."""
    rows = [row for row in correlations.to_pylist() if (row["metric"], row["condition"]) == (metric, condition)]
    return {(row["layer"] or row["scope"]).replace("fc", "FC"): row for row in rows}


_HEADER = ("n", "rho [95 % CI]", "p", "tau [95 % CI]", "p", "RMSE")
_WITHIN = [cell for name in PAIR for cell in (f"rho within {labels.style(name).short}", "p")]


def mean_table(study: Study, correlations: pa.Table, title: str) -> TextTable:
    """A row a metric: the mean over layers, beside what is published, within each condition, and pooled."""
    together, pooled = by_metric(correlations, "mean"), by_metric(correlations, "pooled")
    within = [by_metric(correlations, "mean", name) for name in PAIR]
    lines = []
    for metric, row in together.items():
        given = [f"{value:+g}" for value in published.CORRELATIONS.get(metric, ())] or ["", ""]
        all_ = [signed(pooled[metric][name]) for name in ("rho", "tau")]
        lines.append((f"`{metric}`", *_cells(row), *given, *_within([rows[metric] for rows in within]), *all_))
    header = ["metric", *_HEADER, "published rho", "published tau", *_WITHIN, "rho pooled", "tau pooled"]
    return TextTable(title, header, lines, note=_note(study, "Mean over the six layers, except pooled."))


def layer_table(study: Study, correlations: pa.Table, title: str) -> TextTable:
    """A row a metric and layer, then the mean over layers and all of them pooled."""
    lines = []
    for metric in dict.fromkeys(correlations["metric"].to_pylist()):
        within = [by_place(correlations, metric, name) for name in PAIR]
        for place, row in by_place(correlations, metric).items():
            lines.append((f"`{metric}`", place, *_cells(row), *_within([rows[place] for rows in within])))
    header = ["metric", "layer", *_HEADER, *_WITHIN]
    return TextTable(title, header, lines, texts=(0, 1), note=_note(study, "Within one layer, and over all of them."))


def _cells(row: dict[str, Any]) -> list[str]:
    pairs = [(interval(row, name), p_value(row[f"{name}_p"])) for name in ("rho", "tau")]
    return [f"{row['n']:,}", *pairs[0], *pairs[1], number(100 * row["rmse"], 2)]


def _within(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [cell for row in rows for cell in (interval(row, "rho"), p_value(row["rho_p"]))]


def _note(study: Study, scope: str) -> str:
    mean, pooled = study.mean_separation(), study.separation(None)
    return (
        f"{scope} Accuracy against the metric, re-initialised and re-randomised rows together as in the paper, and "
        "within each of the two. [ ]: 95 % bootstrap interval over models; p: permutations; RMSE: of the least-squares "
        "line, in points of accuracy. A metric that tells the two groups apart and says nothing within them would have "
        f"rho ±{number(mean[0])} and tau ±{number(mean[1])} (mean over layers; pooled ±{number(pooled[0])} and "
        f"±{number(pooled[1])}): computed from the sizes of the groups and the ranks of accuracy here."
    )


def signed(value: float | None, digits: int = 3) -> str:
    """A correlation to read: +0.123, -0.456."""
    text = number(value, digits)
    return text if text.startswith(("-", "–")) or not float(text) else f"+{text}"


def interval(row: dict[str, Any], name: str) -> str:
    """A correlation with its interval, where it has one."""
    low, high = row[f"{name}_lo"], row[f"{name}_hi"]
    return signed(row[name]) + (f" [{signed(low)}, {signed(high)}]" if np.isfinite([low, high]).all() else "")
