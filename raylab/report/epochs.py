"""What a report shows of models that were trained with alpha fixed, a row an epoch."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raylab.report import labels
from raylab.report.courses import FREE, Course, Values, courses, mean_of, numbers
from raylab.report.layerwise import plural
from raylab.report.picture import INK, Key, Panel, Picture, by_error
from raylab.report.untrained import lower_end
from raylab.report.view import View
from raylab.results import frame
from raylab.results.text import TextTable, number, significant, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOALS = (90.0, 96.0)  # of accuracy [%]: where the paper stopped, and what its free models reach
QUERY = "SELECT retraction, alpha_range, epoch, avg(accuracy) FROM trials WHERE layer IS NULL GROUP BY ALL ORDER BY ALL"


class Epochs(View):
    """The view of such results."""

    query = QUERY

    def __init__(self, table: pa.Table) -> None:
        self.table = frame.ok(table)

    @staticmethod
    def of(table: pa.Table) -> bool:
        """Whether these are epochs of training with alpha fixed."""
        return bool((frame.texts(table, "retraction") != "").any())

    @functools.cached_property
    def courses(self) -> list[Course]:
        """The models of each retraction and range, epoch by epoch."""
        return courses(self.table)

    def findings(self) -> list[str]:
        """What was reached, and whether alpha stayed."""
        return [sentence for each in self.courses for sentence in _findings(each)]

    def pictures(self) -> list[Picture]:
        """Accuracy and alpha by epoch."""
        return [accuracy_by_epoch(self.courses), alpha_by_epoch(self.courses)] if self.courses else []

    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""
        return [] if drawn else ["accuracy and alpha by epoch (no model was trained)"]

    def tables(self) -> list[TextTable]:
        """What was reached, as Table 6 of the paper, and on the way there."""
        return [last_table(self.courses), epoch_table(self.courses)] if self.courses else []

    def summary(self) -> list[TextTable]:
        """What was reached."""
        return self.tables()[:1]

    def files(self) -> Mapping[str, tuple[str, pa.Table]]:
        """Every epoch in numbers."""
        if not self.courses:
            return {}
        return {
            "by_epoch.csv": ("Accuracy, loss and alpha of every epoch, with standard errors", numbers(self.courses))
        }


def _findings(each: Course) -> list[str]:
    accuracy, sem = (values[each.last] for values in mean_of(each.accuracy))
    models = plural(each.accuracy.shape[1], "model")
    goals = [f"{goal:g} % at epoch {at}" for goal in GOALS if (at := each.reached(goal)) is not None]
    how = "trained free" if each.retraction == FREE else f"with α fixed by {each.retraction}"
    reach = "reach" if each.accuracy.shape[1] > 1 else "reaches"
    where = f"{each.alpha_range}, {each.sample}" if each.sample else each.alpha_range
    said = (
        f"α in {where}: {models} {how} {reach} {with_error(float(accuracy), float(sem), 2)} % after "
        f"{plural(int(each.epochs[each.last]), 'epoch')}" + (f" ({', '.join(goals)})" if goals else "")
    )
    return [f"{said}; α of a layer moves by at most {significant(each.drift, 2)}."]


# -- tables ------------------------------------------------------------------------------------------------------------


def last_table(found: Sequence[Course]) -> TextTable:
    """Accuracy and alpha of each layer at the last epoch, and how far alpha has moved."""
    layers = list(found[0].alpha)
    rows = []
    for each in found:
        n = int(np.isfinite(each.accuracy[each.last]).sum())
        reached = [f"{at}" if (at := each.reached(goal)) is not None else "–" for goal in GOALS]
        alphas = [_at(each.alpha[layer], each.last, 2) if layer in each.alpha else "–" for layer in layers]
        moved = [significant(each.drift, 2), significant(each.drift_float32, 2)]
        cells = [f"{each.epochs[each.last]:.0f}", f"{n:,}", _at(each.accuracy, each.last, 3), *reached, *alphas, *moved]
        rows.append([each.name, *cells])
    goals = (f"epoch of {goal:g} %" for goal in GOALS)
    header = ["training, range of α", "epochs", "n", "accuracy [%]", *goals, *(f"α {layer}" for layer in layers)]
    note = (
        "Mean ± standard error over models. Moved: the largest change of α of any layer, model and epoch since the "
        "start; in float32: of the weights as the last step left them, before their singular values were restored."
    )
    return TextTable("Trained with α fixed", [*header, "α moved", "in float32"], rows, note=note)


def _at(values: Values, place: int, digits: int) -> str:
    mean, sem = mean_of(values[place : place + 1])
    return with_error(float(mean[0]), float(sem[0]), digits)


def epoch_table(found: Sequence[Course]) -> TextTable:
    """Mean accuracy by epoch."""
    epochs = sorted({int(epoch) for each in found for epoch in each.epochs})
    by_course = [dict(zip(each.epochs.astype(int).tolist(), mean_of(each.accuracy)[0], strict=True)) for each in found]
    rows = [[str(epoch), *(number(means.get(epoch), 2) for means in by_course)] for epoch in epochs]
    header = ["epoch", *(each.name for each in found)]
    return TextTable("Accuracy [%] by epoch", header, rows)


# -- figures -----------------------------------------------------------------------------------------------------------


def accuracy_by_epoch(found: Sequence[Course]) -> Picture:
    """A panel a retraction, a line a range."""
    every = np.concatenate([each.accuracy.ravel() for each in found])
    ends = float(np.nanmin(every)), float(np.nanmax(every))
    panels = [
        Panel(name, lambda ax, some=some: _accuracies(ax, some, *ends), note=_named(name), width=3.4, height=2.8)
        for name, some in _by_retraction(found).items()
    ]
    caption = (
        "Test accuracy, mean over models, with the standard error as a band; on a logarithmic axis of the error. "
        "Dashed: 90 and 96 %."
    )
    return Picture("accuracy_by_epoch", "Accuracy by epoch, α fixed and free", caption, panels, _keys(found), columns=3)


def alpha_by_epoch(found: Sequence[Course]) -> Picture:
    """The same of alpha, a thin line a layer and model."""
    panels = [
        Panel(name, lambda ax, some=some: _alphas(ax, some), note=_named(name), width=3.4, height=2.8)
        for name, some in _by_retraction(found).items()
    ]
    caption = "Each line a layer of a model; colours: the range that α is in at the start."
    return Picture("alpha_by_epoch", "α by epoch, fixed and free", caption, panels, _keys(found), columns=3)


def _named(retraction: str) -> str:
    return "free: the spectrum moves" if retraction == FREE else f"{retraction}: the spectrum stays"


def _by_retraction(found: Sequence[Course]) -> dict[str, list[Course]]:
    kept: dict[str, list[Course]] = {}
    for each in found:
        kept.setdefault(each.retraction, []).append(each)
    return kept


def _colors(found: Sequence[Course]) -> dict[str, str]:
    ranges = sorted({each.alpha_range for each in found}, key=lower_end)
    return {name: labels.RANGES[at % len(labels.RANGES)] for at, name in enumerate(ranges)}


def _keys(found: Sequence[Course]) -> list[Key]:
    return [Key(f"α in {name}", color, "_") for name, color in _colors(found).items()]


def _accuracies(ax: Axes, found: Sequence[Course], lowest: float, highest: float) -> None:
    colors = _colors(found)
    for goal in GOALS:
        ax.axhline(goal, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    for each in found:
        mean, sem = mean_of(each.accuracy)
        half, color = np.nan_to_num(sem), colors[each.alpha_range]
        ax.plot(each.epochs, mean, color=color, linewidth=1.6, marker="o", markersize=2.4)
        ax.fill_between(each.epochs, mean - half, mean + half, color=color, alpha=0.25, linewidth=0)
    by_error(ax, lowest, highest)
    _epoch_axis(ax)
    ax.set_ylabel("accuracy [%]")


def _alphas(ax: Axes, found: Sequence[Course]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    colors = _colors(found)
    for each in found:
        for values in each.alpha.values():
            ax.plot(each.epochs, values, color=colors[each.alpha_range], linewidth=0.6, alpha=0.5)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(FixedLocator([2, 3, 4, 6, 10, 20, 40, 80]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _epoch_axis(ax)
    ax.set_ylabel("α")


def _epoch_axis(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("epoch")
    ax.grid(visible=False, axis="x")
