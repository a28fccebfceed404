"""The page over all experiments of a results folder: one scoreboard of all metrics, and the way to each report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raylab import places
from raylab.errors import UserError
from raylab.places import Place
from raylab.report import html, labels, scoreboard, views
from raylab.report.perturbed import Perturbed
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.report.scoreboard import Scoreboard
from raylab.report.scores import AREA_TICKS, LOOKS, ROW, best_of, told
from raylab.results import frame, parts
from raylab.results.standing import Standing
from raylab.results.text import TextTable, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PASSED = " ✓"
SIDE_BY_SIDE = 5  # columns of experiments in one table
NOTE = (
    "AUC: the median over experiments of what a metric is ranked by in each; n: the experiments in which it has an "
    "interval; better: the direction that the field takes for good, or in brackets the one that does best over all "
    "experiments. Of an experiment: over all cases / within a layer; a single model has the former only. ✓: the test "
    "is passed in that experiment. The intervals are in the tables below."
)


@dataclass(frozen=True)
class Experiment:
    """One results folder, or why it cannot be read."""

    name: str
    scores: Scoreboard | None = None
    rows: int = 0
    models: int = 0
    reason: str = ""

    @property
    def standings(self) -> dict[str, Standing]:
        """Its metrics by name."""
        return {one.metric: one for one in self.scores.found} if self.scores else {}


@dataclass(frozen=True)
class Overall:
    """One metric over all experiments."""

    metric: str
    kind: str
    better: str  # lower, higher, or empty where the field does not say
    turned: bool  # lower is better, where the field does not say: one side for all experiments
    strength: float  # median over the experiments in which it has an interval; NaN without one
    n: int  # those experiments
    passed: int  # in how many of them it tells robust from critical cases


def holds(folder: parts.Where) -> bool:
    """Whether it has no rows of its own, but folders that have."""
    return bool(not parts.names(folder) and _folders(places.at(folder)))


def write(folder: parts.Where) -> str | Path:
    """Write the report of every results folder in `folder`, and <folder>/report.html over all of them.

    What cannot be read is named on the page with the reason. Returns where the page lies. Raises UserError if it
    cannot be written.
    """
    place = places.at(folder)
    experiments = [_read(place / name, name) for name in _folders(place)]
    found = overall(experiments)
    drawn = pictures(experiments, found)
    page = html.template("several.html.j2").render(
        folder=str(place),
        experiments=experiments,
        findings=findings(experiments, found),
        shown=[html.Shown(picture, picture.inline()) for picture in drawn],
        tables=boards(experiments, found),
        each=[(each.name, table) for each in experiments if each.scores and (table := scoreboard.board(each.scores))],
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    with place.written() as here:
        for picture in drawn:
            with html.writing(place / "figures", place):
                picture.save(here / "figures")
        html.save(page, here, place)
    return place.file(html.REPORT)


def _folders(place: Place) -> list[str]:
    return [name for name in place.folders() if parts.names(place / name)]


def _read(folder: Place, name: str) -> Experiment:
    try:
        table = parts.load(folder)
        view = views.of(table)
        html.write(folder, view)
    except (UserError, pa.ArrowException) as error:  # one folder that is damaged must not hide the others
        return Experiment(name, reason=" ".join(str(error).split()))
    models = frame.count_models(table) if view.of_models else 0
    scores = view.scores if isinstance(view, Perturbed) else None
    return Experiment(name, scores, table.num_rows, models)


def overall(experiments: Sequence[Experiment]) -> list[Overall]:
    """Every metric of any experiment by the median of its strength, best first; those without a rank last."""
    every: dict[str, list[Standing]] = {}
    for experiment in experiments:
        for metric, one in experiment.standings.items():
            every.setdefault(metric, []).append(one)
    made = [_overall(found) for found in every.values()]
    return sorted(made, key=lambda one: (-one.strength if one.n else np.inf, -one.n))


def _overall(found: Sequence[Standing]) -> Overall:
    """A metric that the field takes no direction for is seen from the side that does it best over all experiments."""
    ranked, first = [one for one in found if np.isfinite(one.strength())], found[0]
    if not ranked:
        return Overall(first.metric, first.kind, first.better, False, np.nan, 0, 0)
    sides = {
        turned: float(np.median([one.strength(turned) for one in ranked]))
        for turned in ((False,) if first.better else (False, True))
    }
    turned = max(sides, key=lambda each: sides[each])
    passed = sum(one.test_b(turned) is True for one in ranked)
    return Overall(first.metric, first.kind, first.better, turned, sides[turned], len(ranked), passed)


def boards(experiments: Sequence[Experiment], found: Sequence[Overall]) -> list[TextTable]:
    """Every metric, best first, with a column for each experiment; as many side by side as a page bears."""
    of_b = _columns(experiments, found, {"": _b})
    of_others = _columns(experiments, found, {" (a)": _a, " (c)": _c})
    head = {
        "rank": [str(at + 1) if one.n else "–" for at, one in enumerate(found)],
        "AUC": [number(one.strength, 2) for one in found],
        "n": [str(one.n) for one in found],
        "kind": [one.kind for one in found],
        "better": [_better(one) for one in found],
    }
    made = [
        _table("Robust against critical cases (b), over all experiments", found, head | part, (0, 4, 5), NOTE)
        for part in _parts(of_b)
    ]
    return made + [
        _table("Shift (a) and re-initialised against re-randomised (c)", found, part, (0,), "")
        for part in _parts(of_others)
    ]


def _columns(
    experiments: Sequence[Experiment], found: Sequence[Overall], tests: Mapping[str, Callable[[Standing], str]]
) -> dict[str, list[str]]:
    """The cells of each experiment; columns that are empty are left out."""
    made = {
        each.name + suffix: [test(each.standings[one.metric]) if one.metric in each.standings else "–" for one in found]
        for each in experiments
        for suffix, test in tests.items()
    }
    return {name: cells for name, cells in made.items() if set(cells) - {"–"}}


def _parts(columns: dict[str, list[str]]) -> list[dict[str, list[str]]]:
    names = list(columns)
    return [
        {name: columns[name] for name in names[at : at + SIDE_BY_SIDE]} for at in range(0, len(names), SIDE_BY_SIDE)
    ]


def _table(
    title: str, found: Sequence[Overall], columns: dict[str, list[str]], texts: tuple[int, ...], note: str
) -> TextTable:
    """The rows that say something."""
    rows = [[one.metric, *(cells[at] for cells in columns.values())] for at, one in enumerate(found)]
    measured = len(set(columns) & {"rank", "AUC", "n", "kind", "better"})
    rows = [row for row in rows if set(row[1 + measured :]) != {"–"}]
    return TextTable(title, ["metric", *columns], rows, texts=texts, note=note)


def _better(one: Overall) -> str:
    return one.better or ("(lower)" if one.turned else "(higher)" if one.n else "–")


def _a(one: Standing) -> str:
    return _cell(number(one.shift.estimate, 1), one.test_a())


def _b(one: Standing) -> str:
    cell = number(one.area.estimate, 2)
    cell += f" / {number(one.within.estimate, 2)}" if one.area.unit == "model" and cell != "–" else ""
    return _cell(cell, one.test_b())


def _c(one: Standing) -> str:
    return _cell(number(one.groups.estimate, 2), one.test_c())


def _cell(text: str, passed: bool | None) -> str:
    return text + PASSED if passed else text


def findings(experiments: Sequence[Experiment], found: Sequence[Overall]) -> list[str]:
    """Of each kind of metric, how many tell robust from critical cases wherever it can be said."""
    of = sum(any(np.isfinite(one.strength()) for one in each.standings.values()) for each in experiments)
    said = []
    for kind, look in LOOKS.items():
        ranked = [one for one in found if one.kind == kind and one.n]
        if not ranked:
            continue
        always, best = sum(one.passed == one.n for one in ranked), ranked[0]
        some = sum(0 < one.passed < one.n for one in ranked)
        n = len(ranked)
        where = "every experiment that can say so" if always else "any experiment" if not some else "every experiment"
        more = f", {some if n > 1 else 'but'} in some" if some else ""
        over = f"median of {best.n} experiments" if best.n > 1 else "in one experiment"
        said.append(
            f"{told(always, n, look)} in {where}{more}. {best_of(best.metric, n)} {number(best.strength, 2)} ({over})."
        )
    if said:
        said.append(f"{of} of {len(experiments)} experiments have enough robust and critical cases for an interval.")
    return said


def pictures(experiments: Sequence[Experiment], found: Sequence[Overall]) -> list[Picture]:
    """What metrics are ranked by: a marker for each experiment, a stroke for the median."""
    ranked = [one for one in found if one.n]
    if not ranked:
        return []
    some = [each for each in experiments if any(np.isfinite(one.strength()) for one in each.standings.values())]
    marker = {each.name: labels.marker(at, len(some)) for at, each in enumerate(some)}

    def draw(ax: Axes) -> None:
        ax.axvline(0.5, color=INK, linewidth=1)
        for y, one in enumerate(ranked):
            ax.plot([one.strength], [y], marker="|", markersize=12, color=INK, markeredgewidth=1.6)
            for each in some:
                if one.metric in each.standings:
                    _mark(ax, y, each.standings[one.metric], one.turned, marker[each.name])
        ax.set_yticks(range(len(ranked)), [labels.metric(one.metric) for one in ranked], fontsize=7.5)
        ax.set_ylim(len(ranked) - 0.4, -0.6)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xticks(*AREA_TICKS)
        ax.set_xlabel("AUC, robust against critical cases")

    kinds = {one.kind for one in ranked}
    keys = [Key(look.text, look.color) for kind, look in LOOKS.items() if kind in kinds]
    keys += [Key(each.name, None, marker[each.name]) for each in some] + [Key("median", INK, "|")]
    caption = (
        "The lesser of the AUC over all cases and within a layer, from the metric's side (one model: the former); "
        "0.5 is guessing. Experiments without enough robust and critical cases for an interval are left out."
    )
    panel = Panel("AUC of every metric", draw, width=5.2, height=1.0 + ROW * len(ranked))
    return [Picture("scoreboard", "All metrics over all experiments", caption, [panel], keys)]


def _mark(ax: Axes, y: float, one: Standing, turned: bool, marker: str) -> None:
    value = one.strength(turned)
    if np.isfinite(value):
        ax.plot([value], [y], marker=marker, color=LOOKS[one.kind].color, markersize=4.5, linestyle="")
