"""What a report shows of models that were never trained, whose layers have alpha in a chosen range."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.report import labels
from raylab.report.layerwise import plural
from raylab.report.picture import INK, Panel, Picture
from raylab.report.view import View
from raylab.results import frame
from raylab.results.text import TextTable, number, p_value, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BIASES = {"drawn": "with biases", "zero": "without biases"}
QUERY = "SELECT biases, alpha_range, count(*), avg(accuracy) FROM trials WHERE layer IS NULL GROUP BY ALL ORDER BY ALL"


class Untrained(View):
    """The view of such results."""

    query = QUERY

    def __init__(self, table: pa.Table) -> None:
        self.table = frame.ok(table)

    @staticmethod
    def of(table: pa.Table) -> bool:
        """Whether these are models by alpha that were evaluated as they are initialised."""
        return (
            bool((frame.texts(table, "alpha_range") != "").any())
            and not np.isfinite(frame.floats(table, "epoch")).any()
        )

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The models of each range, with and without biases."""
        return groups(self.table)

    def findings(self) -> list[str]:
        """Whether alpha says anything of an untrained model."""
        return [sentence for biases in BIASES for sentence in _findings(self.groups, biases)]

    def pictures(self) -> list[Picture]:
        """The accuracies."""
        return [accuracies(self.groups)] if self.groups else []

    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""
        return [] if drawn else ["accuracy by range of alpha (no model was evaluated)"]

    def tables(self) -> list[TextTable]:
        """One with biases, one without, as Tables 4 and 5 of the paper."""
        return [made for biases in BIASES if (made := range_table(self.groups, biases))]

    def files(self) -> Mapping[str, tuple[str, pa.Table]]:
        """The numbers of the tables."""
        return {"models_by_alpha.csv": ("Accuracy and alpha of each range, with standard errors", numbers(self.groups))}


class Group(NamedTuple):
    """The models of one range of alpha, with or without biases."""

    alpha_range: str
    biases: str
    accuracy: NDArray[np.float64]  # [%], of each model
    alpha: Mapping[str, frame.Mean]  # by layer

    @property
    def mean(self) -> frame.Mean:
        """Of the accuracy [%]."""
        return frame.mean_of(self.accuracy)


def groups(results: pa.Table) -> list[Group]:
    """The groups of the rows that are ok, ranges in rising order."""
    ranges, biases = frame.texts(results, "alpha_range"), frame.texts(results, "biases")
    found = []
    for kind in BIASES:
        for name in sorted(set(ranges[biases == kind]), key=lower_end):
            rows = results.filter(pa.array((biases == kind) & (ranges == name)))
            accuracy = 100 * frame.floats(frame.select(rows, "", None), "accuracy")
            layers = {
                layer: frame.mean_over_models(frame.select(rows, layer, None), "alpha") for layer in frame.layers(rows)
            }
            if len(accuracy):
                found.append(Group(name, kind, accuracy, layers))
    return found


def lower_end(name: str) -> float:
    """Where a range begins, to sort by: 10 of "[10, 12]"."""
    return float(name.strip("[]").split(",")[0])


def same_accuracy(found: Sequence[Group]) -> float:
    """p of Kruskal and Wallis: how often ranges would differ so much in accuracy by chance; NaN for a single one."""
    from scipy.stats import kruskal

    samples = [each.accuracy for each in found]
    if len(samples) < 2 or np.ptp(np.concatenate(samples)) == 0:
        return np.nan
    return float(kruskal(*samples).pvalue)


def _findings(found: Sequence[Group], biases: str) -> list[str]:
    here = [each for each in found if each.biases == biases]
    if not here:
        return []
    means = [f"{number(each.mean.mean, 2)} ± {number(each.mean.sem, 2)} % for α in {each.alpha_range}" for each in here]
    p = same_accuracy(here)
    chance = f" Ranges as far apart come by chance with p {p_value(p)} (Kruskal-Wallis)." if np.isfinite(p) else ""
    models = plural(sum(len(each.accuracy) for each in here), "untrained model")
    return [f"{models} {BIASES[biases]} reach {', '.join(means)}.{chance}"]


def numbers(found: Sequence[Group]) -> pa.Table:
    """A row a group: n, accuracy [%] and alpha by layer, with standard errors."""
    rows = []
    for each in found:
        row = {"biases": each.biases, "alpha_range": each.alpha_range, "n": each.mean.n}
        row |= {"accuracy": each.mean.mean, "accuracy_sem": each.mean.sem}
        row |= {"accuracy_min": float(each.accuracy.min()), "accuracy_max": float(each.accuracy.max())}
        for layer, alpha in each.alpha.items():
            row |= {f"alpha_{layer}": alpha.mean, f"alpha_{layer}_sem": alpha.sem}
        rows.append(row)
    return pa.Table.from_pylist(rows)


def range_table(found: Sequence[Group], biases: str) -> TextTable | None:
    """Accuracy and alpha of each layer by range; None without such models."""
    here = [each for each in found if each.biases == biases]
    if not here:
        return None
    rows = [
        [
            each.alpha_range,
            f"{each.mean.n:,}",
            with_error(each.mean.mean, each.mean.sem, 2),
            f"{number(each.accuracy.min(), 1)} to {number(each.accuracy.max(), 1)}",
            *(with_error(alpha.mean, alpha.sem, 2) for alpha in each.alpha.values()),
        ]
        for each in here
    ]
    header = ["range of α", "n", "accuracy [%]", "lowest to highest", *(f"α {layer}" for layer in here[0].alpha)]
    note = "Mean ± standard error over models, none of which was trained."
    return TextTable(f"Untrained models {BIASES[biases]}, by α of every layer", header, rows, note=note)


def accuracies(found: Sequence[Group]) -> Picture:
    """Each model a dot, by range; a panel with biases, one without."""
    most = max(float(each.accuracy.max()) for each in found)
    panels = [
        Panel(
            title,
            lambda ax, here=here: _dots(ax, here, most),
            note=title[0].upper() + title[1:],
            width=3.6,
            height=2.9,
        )
        for biases, title in BIASES.items()
        if (here := [each for each in found if each.biases == biases])
    ]
    caption = "Each dot an untrained model, every layer of which has α in that range. Bar: the mean."
    return Picture("accuracy_by_range", "Accuracy of untrained models by α", caption, panels, columns=2)


def _dots(ax: Axes, found: Sequence[Group], most: float) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, (each, color) in enumerate(zip(found, (*labels.RANGES, *[INK] * len(found)), strict=False)):
        spread = 0.5 * (_low_discrepancy(len(each.accuracy)) - 0.5)
        ax.plot(place + spread, each.accuracy, linestyle="", marker="o", markersize=3.4, color=color, alpha=0.6, mew=0)
        ax.plot([place - 0.28, place + 0.28], [each.mean.mean] * 2, color=INK, linewidth=1.8, solid_capstyle="butt")
        ax.text(place + 0.28, each.mean.mean, f" {number(each.mean.mean, 1)}", va="center", fontsize=8)
    ax.set_xticks(range(len(found)), [each.alpha_range for each in found])
    ax.set_xlim(-0.6, len(found) - 0.2)
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_ylim(0, 1.08 * most)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("α of every layer")
    ax.set_ylabel("accuracy [%]")


def _low_discrepancy(n: int) -> NDArray[np.float64]:
    """Places that spread evenly without an order to be seen: multiples of the golden ratio."""
    return (np.arange(n) * (np.sqrt(5) - 1) / 2) % 1
