"""Panels that the figures here share: accuracy against a metric, and correlations with their intervals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import published
import pyarrow as pa
from study import PAIR, Study, by_metric, signed

from raylab.report import labels
from raylab.report.against import scale
from raylab.report.by_layer import plain_log
from raylab.report.picture import INK, Key, Panel
from raylab.results import frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEPARATION, PUBLISHED = "#8a909c", "#D5006D"
EDGE = 0.002  # of the values on either side may lie beyond the axis, where a few would squeeze all others


def keys(conditions: Sequence[str], markers: bool = True) -> list[Key]:
    """Colours of the conditions, markers of the layers."""
    made = [Key(labels.style(name).name, labels.style(name).color) for name in conditions]
    return made + [Key(layer.upper(), None, _marker(layer)) for layer in published.LAYERS if markers]


def scatter(
    rows: pa.Table,
    metric: str,
    conditions: Sequence[str],
    note: str,
    layer: str | None = None,
    small: bool = False,
    size: tuple[float, float] = (2.9, 2.7),
) -> Panel:
    """Accuracy [%] against a metric: a point a model, in a random order, so that no kind hides another.

    `layer`: of one layer alone. `note`: above the axes, one line or more. `small`: one of many panels. `size`: inches.
    """
    rows = rows.filter(pa.array(np.isin(frame.texts(rows, "perturbation"), conditions)))
    rows = rows if layer is None else frame.select(rows, layer, None)
    x, y = frame.floats(rows, metric), 100 * frame.floats(rows, "accuracy")
    shown = np.isfinite(x) & np.isfinite(y)
    colors = np.array([labels.style(name).color for name in frame.texts(rows, "perturbation")], dtype=object)
    markers = np.array([_marker(name) if layer is None else "o" for name in frame.texts(rows, "layer")], dtype=object)

    def draw(ax: Axes) -> None:
        for marker in dict.fromkeys(markers[shown]):
            here = np.random.default_rng(0).permutation(np.flatnonzero(shown & (markers == marker)))
            dot, faint = (5, 0.45) if small else (11, 0.5)
            ax.scatter(
                x[here], y[here], s=dot, marker=marker, c=colors[here], alpha=faint, linewidths=0, rasterized=True
            )
        _horizontal(ax, x[shown], metric, small)
        ax.set_ylim(-4, 104)
        ax.set_yticks((0, 50, 100) if small else (0, 20, 40, 60, 80, 100))
        ax.set_xlabel(labels.metric(metric), fontsize=7.5 if small else 9)
        if not small or layer == published.LAYERS[0]:
            ax.set_ylabel("accuracy [%]", fontsize=7.5 if small else 9)
        ax.tick_params(labelsize=6.5 if small else 8)
        ax.set_title(re.sub(r"-(?=[.\d])", "−", note), fontsize=7 if small else 8, linespacing=1.35)

    where = "" if layer is None else f" of {layer.upper()}"
    return Panel(f"{labels.metric(metric)}{where}", draw, width=size[0], height=size[1])


def _horizontal(ax: Axes, x: Any, metric: str, small: bool) -> None:
    """The axis of a metric, logarithmic for alpha; how many values lie beyond it is written at its ends."""
    scale(ax, x)
    if metric == "alpha":
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    elif small and ax.get_xscale() == "linear":
        from matplotlib.ticker import MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10], min_n_ticks=2))
    low, high = np.quantile(x, [EDGE, 1 - EDGE])
    inside = x[(x >= low) & (x <= high)]
    if ax.get_xscale() == "log" or not len(inside) or np.ptp(x) < 2 * np.ptp(inside):
        return
    room = 0.05 * np.ptp(inside)
    ax.set_xlim(inside.min() - room, inside.max() + room)
    for count, place, text in (
        (int(np.sum(x < inside.min() - room)), 0.01, "◂ {} beyond"),
        (int(np.sum(x > inside.max() + room)), 0.99, "{} beyond ▸"),
    ):
        if count:
            ax.text(
                place, 0.5, text.format(count), transform=ax.transAxes, fontsize=6.5, color=INK,
                ha="left" if place < 0.5 else "right",
            )  # fmt: skip


def note(row: Mapping[str, Any], within: Sequence[Mapping[str, Any]], rmse: bool = True) -> str:
    """The numbers of a panel in three lines: together, each condition by itself, what is published."""
    lines = [f"ρ {_short(row['rho'])} [{_short(row['rho_lo'])}, {_short(row['rho_hi'])}]  τ {_short(row['tau'])}"]
    lines[0] += f"  RMSE {100 * row['rmse']:.1f}" if rmse else ""
    apart = [f"{labels.short(each['condition'])} {_short(each['rho'])}" for each in within]
    pairs = [", ".join(apart[at : at + 2]) for at in range(0, len(apart), 2)]  # a third does not fit beside two
    lines += ["ρ within: " + ",\n".join(pairs)] if apart else []
    given = published.CORRELATIONS.get(row["metric"]) if row["scope"] == "mean" else None
    earlier = published.EARLIER_RHO.get(row["metric"])
    if given:
        lines.append(f"paper: ρ {given[0]:+g}, τ {given[1]:+g}")
    elif earlier and row["scope"] == "mean":
        lines.append(f"earlier, {published.EARLIER_MODELS} models: ρ {signed(earlier)}")
    return "\n".join(lines)


def short_note(row: Mapping[str, Any], within: Sequence[Mapping[str, Any]]) -> str:
    """The numbers of a small panel in a line: together | within each condition."""
    return f"ρ {_short(row['rho'])} | {', '.join(_short(each['rho']) for each in within)}   τ {_short(row['tau'])}"


def _short(value: float) -> str:
    return signed(value, 2).replace("0.", ".")


def _marker(layer: str) -> str:
    return labels.MARKERS[published.LAYERS.index(layer)] if layer in published.LAYERS else "o"


# -- correlations ------------------------------------------------------------------------------------------------------


def whiskers(
    places: Sequence[str],
    series: Mapping[str, Sequence[Mapping[str, Any]]],
    separation: Sequence[tuple[float, float]],
    marks: Mapping[int, float],
    size: tuple[float, float] = (2.9, 2.7),
) -> Panel:
    """rho with its interval, a line a place; `series`: condition -> a row of correlate() for each place.

    `separation`: what telling the groups apart alone gives, of either sign; `marks`: published values by place.
    """

    def draw(ax: Axes) -> None:
        ax.axvline(0, color=INK, linewidth=1)
        for at, (rho, _) in enumerate(separation):
            ax.vlines([-rho, rho], at - 0.42, at + 0.42, color=SEPARATION, linestyle=(0, (2, 1.5)), linewidth=1.2)
        for step, (condition, rows) in zip(np.linspace(-0.2, 0.2, len(series)), series.items(), strict=True):
            color, marker = look(condition)
            for at, row in enumerate(rows):
                ax.plot([row["rho_lo"], row["rho_hi"]], [at + step] * 2, color=color, linewidth=1.6)
                ax.plot([row["rho"]], [at + step], marker=marker, color=color, markersize=4, linestyle="")
        ax.plot(list(marks.values()), list(marks), marker="x", color=PUBLISHED, markersize=6, linestyle="", zorder=4)
        ax.set_yticks(range(len(places)), places, fontsize=8)
        ax.set_ylim(len(places) - 0.4, -0.6)
        ax.set_xlim(-1.02, 1.02)
        ax.set_xlabel("Spearman ρ with accuracy")
        ax.tick_params(labelsize=8)
        ax.grid(visible=False, axis="y")

    return Panel("Spearman ρ with accuracy", draw, width=size[0], height=size[1])


def mean_whiskers(study: Study, metrics: Sequence[str], names: Sequence[str], size: tuple[float, float]) -> Panel:
    """Of each metric the mean over layers, together and within each condition, beside what is published."""
    found = study.correlations(metrics)
    rows = series(lambda condition: list(by_metric(found, "mean", condition).values()))
    return whiskers(names, rows, [study.mean_separation()] * len(metrics), marks(metrics), size=size)


def marks(metrics: Sequence[str]) -> dict[int, float]:
    """The published rho of each metric that has one, by its place."""
    return {at: published.CORRELATIONS[each][0] for at, each in enumerate(metrics) if each in published.CORRELATIONS}


def look(condition: str) -> tuple[str, str]:
    """Colour and marker of a condition's correlations."""
    return (INK, "D") if condition == "all" else (labels.style(condition).color, "o")


def whisker_keys(marks: bool) -> list[Key]:
    """What whiskers stand for, beside the colours of the conditions."""
    made = [Key("both together", INK, "D"), Key("separation of the groups alone", SEPARATION, "|")]
    return made + ([Key("published", PUBLISHED, "x")] if marks else [])


def series(of: Callable[[str], Sequence[Mapping[str, Any]]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Rows of both conditions together and of each alone."""
    return {name: of(name) for name in ("all", *PAIR)}
