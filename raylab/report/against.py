"""What is left of perturbed models against metrics of the layer, as in Figures 3, 5, 6 and 8-11 of Paper 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.report import labels
from raylab.report.by_layer import MANY, perturbed, plain_log, spans_decades, target_axis
from raylab.report.layerwise import ROLES, elided, plural, roles_of
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.report.target import Target
from raylab.results import differences, frame, rank
from raylab.results.correlate import USABLE
from raylab.results.text import number
from raylab.types import ORIGINAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

DEPTHS = 5  # layers named in the legend of colours by depth
BROKEN = 30.0  # nats; of costs beyond it the axis is logarithmic from 1 on
AS_IT_IS = "|"  # the marker of an unperturbed layer


def against_target(
    results: pa.Table, correlations: pa.Table, target: Target, metrics: Sequence[str], name: str, what: str
) -> Picture | None:
    """A panel for each metric: what is left of each perturbed model against it.

    Few layers, or several perturbations: colour by condition, marker by layer. One perturbation of more layers than
    there are markers: colour by depth, marker by what a layer is for. Of a single model the unperturbed layers are
    shown.
    """
    conditions, layers = perturbed(results), frame.layers(results)
    y = target.values(results)
    metrics = [metric for metric in metrics if (np.isfinite(frame.floats(results, metric)) & np.isfinite(y)).any()]
    if not (conditions and metrics):
        return None
    look = _Look(results, conditions, layers)
    rho = _estimates(correlations, target)
    panels = [_panel(results, metric, target, look, _note(rho, metric, look.one)) for metric in metrics]
    if len(panels) == 1:  # as large as other figures of one panel, so that a page does not enlarge its letters
        panels = [replace(panels[0], width=4.6, height=3.1)]
    return Picture(
        name, f"{target.column.capitalize()} against {what}", _caption(results, y, look), panels, look.keys()
    )


class _Look:
    """How rows are drawn: a colour and a marker for each."""

    def __init__(self, results: pa.Table, conditions: Sequence[str], layers: Sequence[str]) -> None:
        self.conditions, self.layers = conditions, layers
        self.one = frame.one_model(results)
        self.deep = len(conditions) == 1 and len(layers) > len(labels.MARKERS)
        condition, layer = frame.texts(results, "perturbation"), frame.texts(results, "layer")
        self.inside = np.isin(condition, conditions) & (layer != "")
        self.as_it_is = self.one & (condition == ORIGINAL) & (layer != "")
        self.roles = roles_of(results)
        if self.deep:
            self.depths = depth_colors(len(layers))
            color = dict(zip(layers, self.depths, strict=True))
            self.colors = np.array([color.get(name, INK) for name in layer], dtype=object)
            self.markers = np.array([ROLES[self.roles[name]][1] if name else "o" for name in layer], dtype=object)
        else:
            place = {name: labels.marker(at, len(layers)) for at, name in enumerate(layers)}
            self.colors = np.array([labels.style(name).color for name in condition], dtype=object)
            self.markers = np.array([place.get(name, "o") for name in layer], dtype=object)

    def keys(self) -> list[Key]:
        """The legend."""
        if not self.deep:
            made = [Key(labels.style(name).name, labels.style(name).color) for name in self.conditions]
            some = len(self.layers) <= len(labels.MARKERS)
            made += [
                Key(name, None, labels.marker(at, len(self.layers))) for at, name in enumerate(self.layers) if some
            ]
        else:
            named = np.unique(np.linspace(0, len(self.layers) - 1, DEPTHS).round().astype(int))
            made = [Key(f"{at} {elided(str(self.layers[at]), 24)}", self.depths[at]) for at in named]
            used = [role for role in ROLES if role in self.roles.values()]
            made += [Key(role, None, ROLES[role][1]) for role in used if len(used) > 1]
        return made + ([Key("unperturbed layer", INK, AS_IT_IS)] if self.as_it_is.any() else [])


def depth_colors(count: int) -> list[str]:
    """Colours from the first layer to the last, all of them visible on light and on dark."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return [to_hex(color) for color in mpl.colormaps["plasma"](np.linspace(0.3, 0.84, count))]


def _estimates(correlations: pa.Table, target: Target) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (row["metric"], row["scope"]): row
        for row in correlations.to_pylist()
        if row["condition"] == "all" and row["target"] == target.column and row["status"] in USABLE
    }


def _note(rho: dict[tuple[str, str], dict[str, Any]], metric: str, one: bool) -> str:
    row, pooled = rho.get((metric, "mean")), rho.get((metric, "pooled"))
    if one:
        said = [
            f"{number(each['rho'], 2)} {where}" for each, where in ((row, "in a layer"), (pooled, "across")) if each
        ]
        text = f"ρ {', '.join(said)}" if said else ""
    else:
        text = f"ρ {number(row['rho'], 2)}   τ {number(row['tau'], 2)}" if row else ""
    return text.replace("-", "−")


def _caption(results: pa.Table, y: NDArray[np.float64], look: _Look) -> str:
    if not look.one:
        return (
            "One point is one model with one layer perturbed. ρ and τ: mean over layers of the correlation of all "
            "perturbed rows together; two groups that are apart make a strong ρ alone, so see each within its "
            "condition."
        )
    deed = f" {labels.style(look.conditions[0]).name}" if len(look.conditions) == 1 else " perturbed"
    text = (
        f"One point is the model with one layer{deed} once. ρ in a layer: among the draws of one layer, mean over "
        "layers; across: all points together, in which layers of different size and scale are compared."
    )
    if look.as_it_is.any():
        text += " Strokes: the unperturbed layers, at the level of the whole model."
    lost = int(np.sum(look.inside & ~np.isfinite(y)))
    return text + (f" Left out, not finite: {plural(lost, 'row')}." if lost else "")


def _panel(results: pa.Table, metric: str, target: Target, look: _Look, note: str) -> Panel:
    x, y = frame.floats(results, metric), target.values(results)
    shown = look.inside & np.isfinite(x) & np.isfinite(y)
    as_it_is = x[look.as_it_is & np.isfinite(x)]
    whole = target.baseline(results).mean

    def draw(ax: Axes) -> None:
        if len(as_it_is) and np.isfinite(whole):
            ax.scatter(
                as_it_is, np.full(len(as_it_is), whole), s=34, marker=AS_IT_IS, color=INK, linewidths=0.8, alpha=0.7
            )
        points(ax, x, y, shown, look)
        scale(ax, np.concatenate([x[shown], as_it_is]))
        target_axis(ax, target, y[shown])
        ax.set_xlabel(labels.metric(metric))

    return Panel(labels.metric(metric), draw, note=note)


def points(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], shown: NDArray[np.bool_], look: _Look) -> None:
    """The rows that are shown, marker by marker, in a random order so that none hides another kind."""
    size, many = 13 if shown.sum() > 100 else 26, bool(shown.sum() > MANY)
    for marker in dict.fromkeys(look.markers[shown]):
        here = np.random.default_rng(0).permutation(np.flatnonzero(shown & (look.markers == marker)))
        ax.scatter(
            x[here], y[here], s=size, marker=marker, c=look.colors[here], alpha=0.65, linewidths=0, rasterized=many
        )


def scale(ax: Axes, values: NDArray[np.float64]) -> None:
    """The horizontal axis: logarithmic where the values span most of a decade or more."""
    if spans_decades(values):
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    else:
        few_ticks(ax.xaxis)


def few_ticks(axis: Axis) -> None:
    """Three to five round numbers on a linear axis."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))


def short_numbers(axis: Axis) -> None:
    """Tick labels that stay apart whatever the range: 0.0025, 250, but −8e5 and 2.5e−5."""
    from matplotlib.ticker import FuncFormatter

    def written(value: float, _: int | None) -> str:
        largest = np.abs(axis.get_majorticklocs()).max()
        if abs(value) < 1e-9 * largest:
            return "0"
        if 1e-3 <= largest < 1e4:
            return f"{value:g}".replace("-", "−")
        mantissa, exponent = f"{value:.5e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")

    axis.set_major_formatter(FuncFormatter(written))


# -- what changes ------------------------------------------------------------------------------------------------------


def changes(results: pa.Table, target: Target) -> Picture | None:
    """A panel for each metric of a single model: what perturbing a layer costs against how the metric changes."""
    if not frame.one_model(results):
        return None
    made = differences.differences(results)
    cost = -target.better * target.scale * frame.floats(made, differences.PREFIX + target.column)
    metrics = [name for name in labels.PRIMARY if np.isfinite(_change(made, name) * cost).any()]
    if not metrics:
        return None
    look = _Look(made, perturbed(made), frame.layers(made))
    panels = [_changed(_change(made, name), cost, name, target, look) for name in metrics]
    caption = (
        "One point is the model with one layer perturbed once: what that costs, against the layer's metric less that "
        "of the same layer unperturbed. ρ: all points together."
    )
    return Picture(
        "changes", f"Cost in {target.column} against the change of each metric", caption, panels, look.keys()
    )


def _change(made: pa.Table, metric: str) -> NDArray[np.float64]:
    return frame.floats(made, differences.PREFIX + metric)


def _changed(x: NDArray[np.float64], cost: NDArray[np.float64], metric: str, target: Target, look: _Look) -> Panel:
    shown = look.inside & np.isfinite(x) & np.isfinite(cost)
    rho = float(rank.spearman(x[shown, None], cost[shown])[0]) if shown.sum() > 1 and np.ptp(x[shown]) > 0 else np.nan

    def draw(ax: Axes) -> None:
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.axhline(0, color=INK, linestyle=(0, (4, 3)), linewidth=0.8)
        points(ax, x, cost, shown, look)
        if target.unit != "%" and cost[shown].max() > BROKEN:
            ax.set_yscale("symlog", linthresh=1.0)
        few_ticks(ax.xaxis)
        short_numbers(ax.xaxis)
        ax.set_xlabel(f"change of {labels.metric(metric)}")
        ax.set_ylabel(f"cost in {target.column} [{target.difference}]")

    note = f"ρ {number(rho, 2)} across".replace("-", "−") if np.isfinite(rho) else ""
    return Panel(f"change of {labels.metric(metric)}", draw, note)
