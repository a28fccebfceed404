"""The figures of a report. Each is left out where the results have nothing for it.

matplotlib is loaded when a figure is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raylab.report import labels
from raylab.report import target as targets
from raylab.report.against import against_target, changes
from raylab.report.by_layer import alpha_by_layer, target_by_layer
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.results import frame
from raylab.results.correlate import USABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pictures(table: pa.Table, correlations: pa.Table) -> list[Picture]:
    """All figures that these results allow, in the order of the report."""
    results, target = frame.ok(table), targets.of(table)
    if target is None:
        drawn = [alpha_by_layer(results)]
        return [picture for picture in drawn if picture]
    one = frame.one_model(results)
    own = _own(correlations)
    drawn = [
        target_by_layer(results, target),
        alpha_by_layer(results),
        against_target(results, correlations, target, labels.PRIMARY, "metrics", "spectral metrics"),
        changes(results, target) if one else None,
        rho_by_metric(correlations, one),
        against_target(
            results, correlations, target, labels.SIMILARITY, "similarity", "similarity to the unperturbed model"
        ),
        against_target(results, correlations, target, own, "own_metrics", "your own metrics"),
    ]
    return [picture for picture in drawn if picture]


def _own(correlations: pa.Table) -> list[str]:
    from raylab.results.columns import KNOWN

    names = dict.fromkeys(correlations["metric"].to_pylist())
    return [name for name in names if name not in KNOWN and not name.startswith("rand_")]


# -- correlations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Series:
    """Correlations of one kind, drawn alike."""

    text: str
    color: str
    marker: str
    rows: dict[str, dict[str, Any]]  # by metric


def rho_by_metric(correlations: pa.Table, one: bool = False) -> Picture | None:
    """rho of each metric with its interval: all perturbed together, and within each condition.

    Of a single model (`one`) and one perturbation: within a layer, and across layers.
    """
    series = _series(correlations, one)
    shown = [*labels.PRIMARY, *labels.SIMILARITY, *_own(correlations)]
    metrics = [name for name in shown if any(name in each.rows for each in series)]
    if not metrics:
        return None
    target = next(row["target"] for each in series for row in each.rows.values())
    within = _of_one(correlations, one)

    def draw(ax: Axes) -> None:
        ax.axvline(0, color=INK, linewidth=1)
        for place, each in enumerate(series):
            step = 0.17 * (place - (len(series) - 1) / 2)
            for name in metrics:
                if name in each.rows:
                    _whisker(ax, each, each.rows[name], metrics.index(name) + step)
        ax.set_yticks(range(len(metrics)), [labels.metric(name) for name in metrics])
        ax.set_ylim(len(metrics) - 0.5, -0.5)
        ax.set_xlim(-1.04, 1.04)
        ax.set_xlabel(f"Spearman ρ with {target}" + ("" if within else ", mean over layers"))
        ax.grid(visible=False, axis="y")

    keys = [Key(each.text, each.color, each.marker) for each in series]
    panel = Panel(f"ρ with {target}", draw, width=4.6, height=1.0 + 0.36 * len(metrics))
    where = " and ".join(each.text for each in series) if within else "together and within"
    title = f"Correlation with {target}, {where}"
    return Picture("rho_by_metric", title, _rho_caption(series, within), [panel], keys)


def _of_one(correlations: pa.Table, one: bool) -> bool:
    """Whether there is a single model and a single perturbation: no groups to compare but layers."""
    return one and set(correlations["condition"].to_pylist()) == {"all"}


def _series(correlations: pa.Table, one: bool) -> list[_Series]:
    rows = [row for row in correlations.to_pylist() if row["status"] in USABLE and "+" not in row["condition"]]
    conditions = [name for name in dict.fromkeys(correlations["condition"].to_pylist()) if "+" not in name]

    def of(scope: str, condition: str) -> dict[str, dict[str, Any]]:
        return {row["metric"]: row for row in rows if (row["scope"], row["condition"]) == (scope, condition)}

    if _of_one(correlations, one):
        made = [
            _Series("within a layer", labels.STYLES["rerandomize"].color, "o", of("mean", "all")),
            _Series("across layers", INK, "D", of("pooled", "all")),
        ]
    else:
        made = [_Series(labels.condition(name), _color(name), _marker(name), of("mean", name)) for name in conditions]
    return [each for each in made if each.rows]


def _rho_caption(series: Sequence[_Series], within: bool) -> str:
    intervals = any(np.isfinite(row["rho_lo"]) for each in series for row in each.rows.values())
    caption = "Bars: 95 % bootstrap intervals. " if intervals else "Too few rows for intervals. "
    if not within:
        return (
            caption + "A metric that tells how good a model is has the same sign together and within every condition."
        )
    return caption + (
        "Within: among the draws of one layer, mean over layers; draws are resampled. Across: all rows together; whole "
        "layers are resampled. A metric that tells what a perturbation costs does so in both."
    )


def _whisker(ax: Axes, series: _Series, row: dict[str, Any], y: float) -> None:
    if np.isfinite(row["rho_lo"]):
        ax.plot([row["rho_lo"], row["rho_hi"]], [y, y], color=series.color, linewidth=1.6, solid_capstyle="butt")
    ax.plot([row["rho"]], [y], marker=series.marker, color=series.color, markersize=4.5, linestyle="")


def _color(condition: str) -> str:
    return INK if condition == "all" else labels.style(condition).color


def _marker(condition: str) -> str:
    return "D" if condition == "all" else "o"
