"""The figures of a report. Each is left out where the results have nothing for it.

matplotlib is loaded when a figure is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raylab.report import labels, spectra
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.results import frame
from raylab.results.text import number
from raylab.types import ORIGINAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRITICAL = 0.10  # re-initialising a critical layer costs more than this much accuracy
MANY = 300  # points of a panel beyond which they are drawn as pixels: an SVG of them would be megabytes


def pictures(table: pa.Table, correlations: pa.Table) -> list[Picture]:
    """All figures that these results allow, in the order of the report."""
    if spectra.alone(table):
        return spectra.pictures(table)
    results = frame.ok(table)
    spectral, similar = "Accuracy against spectral metrics", "Accuracy against similarity to the trained model"
    drawn = (
        accuracy_by_layer(results),
        alpha_by_layer(results),
        against_accuracy(results, correlations, labels.PRIMARY, "metrics", spectral),
        rho_by_metric(correlations),
        against_accuracy(results, correlations, labels.SIMILARITY, "similarity", similar),
        against_accuracy(results, correlations, _own(correlations), "own_metrics", "Accuracy against your own metrics"),
    )
    return [picture for picture in drawn if picture]


def _own(correlations: pa.Table) -> list[str]:
    from raylab.results.columns import KNOWN

    names = dict.fromkeys(correlations["metric"].to_pylist())
    return [name for name in names if name not in KNOWN and not name.startswith("rand_")]


def _perturbed(results: pa.Table) -> list[str]:
    return [name for name in frame.conditions(results) if name != ORIGINAL]


# -- accuracy against metrics, as in Figure 3 of Paper 1 ---------------------------------------------------------------


def against_accuracy(
    results: pa.Table, correlations: pa.Table, metrics: Sequence[str], name: str, title: str
) -> Picture | None:
    """A panel for each metric: accuracy of each perturbed model against it, colour by condition, marker by layer."""
    conditions, layers = _perturbed(results), frame.layers(results)
    accuracy = np.isfinite(frame.floats(results, "accuracy"))
    metrics = [metric for metric in metrics if (np.isfinite(frame.floats(results, metric)) & accuracy).any()]
    if not (conditions and metrics):
        return None
    rho = {
        row["metric"]: row
        for row in correlations.to_pylist()
        if row["scope"] == "mean" and row["condition"] == "all" and row["target"] == "accuracy"
    }
    panels = [_against(results, metric, conditions, layers, rho.get(metric)) for metric in metrics]
    keys = [Key(labels.style(name).name, labels.style(name).color) for name in conditions]
    keys += [Key(layer, None, labels.marker(at, len(layers))) for at, layer in enumerate(layers) if len(layers) <= 10]
    caption = (
        "One point is one model with one layer perturbed. ρ and τ: mean over layers of the correlation of all "
        "perturbed rows together; two groups that are apart make a strong ρ alone, so see each within its condition."
    )
    return Picture(name, title, caption, panels, keys)


def _against(
    results: pa.Table, metric: str, conditions: Sequence[str], layers: Sequence[str], row: dict[str, Any] | None
) -> Panel:
    x, y = frame.floats(results, metric), 100 * frame.floats(results, "accuracy")
    condition, layer = frame.texts(results, "perturbation"), frame.texts(results, "layer")
    colors = np.array([labels.style(name).color for name in condition], dtype=object)
    shown = np.isin(condition, conditions) & np.isfinite(x) & np.isfinite(y) & (layer != "")

    size, many = 13 if shown.sum() > 100 else 26, bool(shown.sum() > MANY)

    def draw(ax: Axes) -> None:
        for at, name in enumerate(layers):
            # In a random order, so that no condition hides another.
            here = np.random.default_rng(0).permutation(np.flatnonzero(shown & (layer == name)))
            ax.scatter(
                x[here], y[here], s=size, marker=labels.marker(at, len(layers)), c=colors[here], alpha=0.65,
                linewidths=0, rasterized=many,
            )  # fmt: skip
        _scale(ax, x[shown])
        ax.set_ylim(-4, 104)
        ax.set_xlabel(labels.metric(metric))
        ax.set_ylabel("accuracy [%]")

    found = row is not None and row["status"] in ("ok", "partial")
    said = f"ρ {number(row['rho'], 2)}   τ {number(row['tau'], 2)}".replace("-", "−") if row and found else ""
    return Panel(labels.metric(metric), draw, note=said)


def _scale(ax: Axes, values: np.ndarray) -> None:
    """Logarithmic where the values span most of a decade or more."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    low, high = np.quantile(values, [0.01, 0.99])
    if values.min() <= 0 or high / low < 8:
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
        return
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())


# -- by layer ----------------------------------------------------------------------------------------------------------


def accuracy_by_layer(results: pa.Table) -> Picture | None:
    """Accuracy left after each layer is perturbed: robust layers and critical ones."""
    conditions, layers = _perturbed(results), frame.layers(results)
    values = 100 * frame.floats(results, "accuracy")
    if not (conditions and np.isfinite(values).any()):
        return None
    whole = baseline(results).mean
    critical = _critical(results, layers, whole)

    def draw(ax: Axes) -> None:
        for at in critical:
            ax.axvspan(at - 0.5, at + 0.5, color=labels.CRITICAL, alpha=0.10, linewidth=0)
        if np.isfinite(whole):
            ax.axhline(100 * whole, color=INK, linestyle=(0, (4, 3)), linewidth=1)
        _by_layer(ax, results, "accuracy", conditions, layers, 100.0)
        ax.set_ylim(-4, 104)
        ax.set_ylabel("accuracy [%]")

    keys = [Key(labels.style(name).name, labels.style(name).color) for name in conditions]
    keys += [Key("trained", INK, "_")] if np.isfinite(whole) else []
    band = [layers[at] for at in critical]
    caption = "Small points are models, large ones their mean. Dashed: the trained models."
    if "reinit" in conditions and np.isfinite(whole):
        caption += f" Shaded: critical layers, which cost more than {100 * CRITICAL:.0f} points when re-initialised"
        caption += f" ({', '.join(band)})." if band else " (none)."
    width = max(4.6, 1.2 + 0.55 * len(layers))
    panel = Panel("Accuracy by layer", draw, width=width, height=3.1)
    return Picture("accuracy_by_layer", "Robust and critical layers", caption, [panel], keys)


def baseline(results: pa.Table) -> frame.Mean:
    """Mean accuracy of the unperturbed models, from their own rows or else those of their unperturbed layers."""
    whole = frame.mean_over_models(frame.select(results, "", None), "accuracy")
    return whole if whole.n else frame.mean_over_models(frame.select(results, None, ORIGINAL), "accuracy")


def _critical(results: pa.Table, layers: Sequence[str], whole: float) -> list[int]:
    left = [frame.mean_over_models(frame.select(results, name, "reinit"), "accuracy").mean for name in layers]
    return [at for at, value in enumerate(left) if whole - value > CRITICAL]


def alpha_by_layer(results: pa.Table) -> Picture | None:
    """alpha of each layer, trained and perturbed."""
    conditions, layers = frame.conditions(results), frame.layers(results)
    if not (conditions and np.isfinite(frame.floats(results, "alpha")).any()):
        return None

    def draw(ax: Axes) -> None:
        from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

        ax.axhspan(2, 6, color=INK, alpha=0.06, linewidth=0)
        ax.set_yscale("log")
        _by_layer(ax, results, "alpha", conditions, layers, 1.0)
        ax.yaxis.set_major_locator(FixedLocator([1, 2, 3, 4, 6, 10, 15, 20, 30, 50, 100, 200]))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel("α (log scale)")

    keys = [Key(labels.style(name).name, labels.style(name).color) for name in conditions]
    caption = (
        "Exponent of the power law fitted to each layer's spectrum. Shaded: 2 to 6, the range that the literature "
        "expects of well-trained layers."
    )
    panel = Panel("α by layer", draw, width=max(4.6, 1.2 + 0.55 * len(layers)), height=3.1)
    return Picture("alpha_by_layer", "α of trained and perturbed layers", caption, [panel], keys)


def _by_layer(
    ax: Axes, results: pa.Table, column: str, conditions: Sequence[str], layers: Sequence[str], scale: float
) -> None:
    rng = np.random.default_rng(0)
    values = scale * frame.floats(results, column)
    condition, layer = frame.texts(results, "perturbation"), frame.texts(results, "layer")
    for place, name in enumerate(conditions):
        color = labels.style(name).color
        shift = 0.17 * (place - (len(conditions) - 1) / 2)
        for at, each in enumerate(layers):
            here = values[(condition == name) & (layer == each) & np.isfinite(values)]
            if not len(here):
                continue
            x = at + shift + rng.uniform(-0.06, 0.06, len(here))
            ax.scatter(x, here, s=6, color=color, alpha=0.3, linewidths=0, rasterized=len(values) > MANY)
            ax.scatter([at + shift], [here.mean()], s=34, color=color, edgecolors=INK, linewidths=0.8, zorder=3)
    ax.set_xticks(range(len(layers)), layers, rotation=0 if len(layers) <= 8 else 90)
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.grid(visible=False, axis="x")


# -- correlations ------------------------------------------------------------------------------------------------------


def rho_by_metric(correlations: pa.Table) -> Picture | None:
    """rho of each metric with its interval: all perturbed together, and within each condition."""
    rows = [
        row
        for row in correlations.to_pylist()
        if row["scope"] == "mean" and row["status"] in ("ok", "partial") and "+" not in row["condition"]
    ]
    shown = [*labels.PRIMARY, *labels.SIMILARITY, *_own(correlations)]
    metrics = [name for name in shown if any(row["metric"] == name for row in rows)]
    conditions = [name for name in dict.fromkeys(correlations["condition"].to_pylist()) if "+" not in name]
    conditions = [name for name in conditions if any(row["condition"] == name for row in rows)]
    if not metrics:
        return None

    def draw(ax: Axes) -> None:
        ax.axvline(0, color=INK, linewidth=1)
        for row in rows:
            if row["metric"] not in metrics:
                continue
            step = 0.17 * (conditions.index(row["condition"]) - (len(conditions) - 1) / 2)
            _whisker(ax, row, metrics.index(row["metric"]) + step)
        ax.set_yticks(range(len(metrics)), [labels.metric(name) for name in metrics])
        ax.set_ylim(len(metrics) - 0.5, -0.5)
        ax.set_xlim(-1.04, 1.04)
        ax.set_xlabel("Spearman ρ with accuracy, mean over layers")
        ax.grid(visible=False, axis="y")

    keys = [Key(labels.condition(name), _color(name), _marker(name)) for name in conditions]
    intervals = any(np.isfinite(row["rho_lo"]) for row in rows)
    caption = "Bars: 95 % bootstrap intervals. " if intervals else "Too few models for intervals. "
    caption += "A metric that tells how good a model is has the same sign together and within every condition."
    panel = Panel("ρ with accuracy", draw, width=4.6, height=1.0 + 0.36 * len(metrics))
    return Picture("rho_by_metric", "Correlation with accuracy, together and within", caption, [panel], keys)


def _whisker(ax: Axes, row: dict[str, Any], y: float) -> None:
    color = _color(row["condition"])
    if np.isfinite(row["rho_lo"]):
        ax.plot([row["rho_lo"], row["rho_hi"]], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
    ax.plot([row["rho"]], [y], marker=_marker(row["condition"]), color=color, markersize=4.5, linestyle="")


def _color(condition: str) -> str:
    return INK if condition == "all" else labels.style(condition).color


def _marker(condition: str) -> str:
    return "D" if condition == "all" else "o"
