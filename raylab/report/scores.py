"""The panels of the scoreboard's figure: metrics as rows, a dot and an interval for each of the three numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raylab.report import labels
from raylab.report.picture import INK, Panel
from raylab.results.standing import AREA, SHIFT, Number, Standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Look(NamedTuple):
    """How a kind of metric is named and drawn."""

    text: str
    noun: str
    color: str
    marker: str


LOOKS = {
    "data-free": Look("data-free", "data-free metrics", "#0072B2", "o"),
    "data-based": Look("data-based", "data-based metrics", "#D55E00", "s"),
    "own": Look("your own", "metrics of your own", "#009E73", "D"),
}
TELL = "robust from critical cases"
AREA_TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
ROW = 0.19  # inches a metric


def told(passed: int, ranked: int, look: Look) -> str:
    """How many metrics of a kind tell robust from critical cases: the start of a sentence."""
    if ranked == 1:
        return f"The only {look.noun.replace('metrics', 'metric')} {'tells' if passed else 'does not tell'} {TELL}"
    return f"{passed or 'None'} of {ranked} {look.noun} tell{'s' * (passed < 2)} {TELL}"


def best_of(metric: str, ranked: int) -> str:
    """The start of the next one, which goes on with the AUC."""
    return f"Best: {labels.metric(metric)}, AUC" if ranked > 1 else f"{labels.metric(metric)} has an AUC of"


def panels(found: Sequence[Standing]) -> list[Panel]:
    """(a), (b) and (c), each where some metric has a number."""
    made = []
    if any(np.isfinite(one.shift.estimate) for one in found):
        made.append(_panel("(a) shift of re-initialised robust layers", found, _shifts, "standard deviations"))
    if any(np.isfinite(one.area.estimate) for one in found):
        made.append(_panel("(b) robust against critical", found, _robust, "AUC"))
    if any(np.isfinite(one.groups.estimate) for one in found):
        made.append(_panel("(c) re-initialised against re-randomised", found, _groups, "AUC"))
    return made


def _panel(
    title: str, found: Sequence[Standing], draw_rows: Callable[[Axes, Sequence[Standing]], None], unit: str
) -> Panel:
    def draw(ax: Axes) -> None:
        draw_rows(ax, found)
        ax.set_yticks(range(len(found)), [labels.metric(one.metric) for one in found], fontsize=7.5)
        for text, one in zip(ax.get_yticklabels(), found, strict=True):
            if one.kind == "own":
                text.set_fontweight("bold")
        ax.set_ylim(len(found) - 0.4, -0.6)
        ax.set_xlabel(unit)

    return Panel(title, draw, note=title, width=4.0, height=1.0 + ROW * len(found))


def _shifts(ax: Axes, found: Sequence[Standing]) -> None:
    from raylab.report.by_layer import plain_log

    ax.set_xscale("log")
    ax.axvline(SHIFT, color=INK, linewidth=1)
    for y, one in enumerate(found):
        _dot(ax, y, one.rerandomized, one, hollow=True)
        _dot(ax, y, one.shift, one)
    ends = [each for one in found for each in (one.shift.estimate, one.shift.lo, one.rerandomized.estimate) if each > 0]
    low = min([*ends, SHIFT]) / 1.6
    ax.set_xlim(left=low)
    ax.axvspan(low, SHIFT, color=INK, alpha=0.05, linewidth=0)
    plain_log(ax.xaxis)


def _robust(ax: Axes, found: Sequence[Standing]) -> None:
    _scale(ax)
    for y, one in enumerate(found):
        if one.area.unit == "model":
            _dot(ax, y, one.within, one, hollow=True)
        _dot(ax, y, one.area, one)


def _groups(ax: Axes, found: Sequence[Standing]) -> None:
    _scale(ax)
    for y, one in enumerate(found):
        _dot(ax, y, one.groups, one)


def _scale(ax: Axes) -> None:
    ax.axvline(0.5, color=INK, linewidth=1)
    ax.axvspan(AREA, 1.02, color=INK, alpha=0.05, linewidth=0)
    ax.axvspan(-0.02, 1 - AREA, color=INK, alpha=0.025, linewidth=0)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xticks(*AREA_TICKS)


def _dot(ax: Axes, y: float, value: Number, one: Standing, hollow: bool = False) -> None:
    look = LOOKS[one.kind]
    if not np.isfinite(value.estimate):
        return
    if value.sure:
        ax.plot([value.lo, value.hi], [y, y], color=look.color, linewidth=1.0 if hollow else 1.8, alpha=0.9)
    ax.plot(
        [value.estimate], [y], marker="D" if hollow else look.marker, markersize=3.6 if hollow else 4.2, linestyle="",
        color=look.color, markerfacecolor="none" if hollow else look.color, markeredgewidth=0.9,
    )  # fmt: skip
