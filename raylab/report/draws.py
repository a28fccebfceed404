"""What a report shows of layers that were drawn as they are initialised: which alphas there are before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.report import labels
from raylab.report.layerwise import listed, plural
from raylab.report.picture import GRID, INK, Panel, Picture
from raylab.report.view import View
from raylab.results import frame
from raylab.results.text import TextTable, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONDITION = "initial"
RANGES = ((2.0, 6.0), (10.0, 12.0), (18.0, 20.0))  # of alpha, in the order of the paper
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
CONFIDENCE = 0.95
BARS = 60
QUERY = "SELECT layer, count(*), median(alpha), avg((alpha BETWEEN 2 AND 6)::INT) FROM trials GROUP BY layer"


class Draws(View):
    """The view of such results."""

    query = QUERY
    of_models = False

    def __init__(self, table: pa.Table) -> None:
        self.found = populations(table)

    @staticmethod
    def of(table: pa.Table) -> bool:
        """Whether these are draws of layers."""
        return frame.conditions(table) == [CONDITION]

    def findings(self) -> list[str]:
        """How often alpha is where trained layers have it."""
        return [finding(each) for each in self.found if len(each.alpha)]

    def pictures(self) -> list[Picture]:
        """The histograms."""
        return [histograms(self.found)] if any(len(each.alpha) for each in self.found) else []

    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""
        return [] if drawn else ["alpha of initial layers (no draw has a power-law fit)"]

    def tables(self) -> list[TextTable]:
        """Quantiles and shares."""
        return [quantile_table(self.found), share_table(self.found)]

    def files(self) -> Mapping[str, tuple[str, pa.Table]]:
        """The numbers of both tables."""
        return {
            "alpha_at_init.csv": ("Quantiles of alpha, and the shares of ranges with intervals", numbers(self.found))
        }


@dataclass(frozen=True)
class Population:
    """The draws of all layers of one shape that are initialised alike."""

    layer: str  # that stands for all
    shape: str
    law: str
    stands_for: str
    alpha: NDArray[np.float64]  # of the draws that have a fit
    without: int  # draws that have none, or failed

    @property
    def title(self) -> str:
        """Which layer this is."""
        many = len(self.stands_for.split(", "))
        return f"{self.shape} ({self.stands_for if many < 4 else f'{self.layer} and {many - 1} more'})"

    def share(self, low: float, high: float) -> tuple[float, float, float]:
        """How many draws have alpha in [low, high], of 1, with Wilson's interval."""
        from scipy.stats import binomtest

        inside, n = int(np.sum((low <= self.alpha) & (self.alpha <= high))), len(self.alpha)
        if not n:
            return np.nan, np.nan, np.nan
        interval = binomtest(inside, n).proportion_ci(CONFIDENCE, method="wilson")
        return inside / n, float(interval.low), float(interval.high)


def populations(table: pa.Table, draws: int | None = None) -> list[Population]:
    """The populations of a results table, in the order of their layers; `draws`: the first so many of each."""
    if draws is not None:
        table = table.filter(pa.array(frame.floats(table, "draw") < draws))
    which = frame.codes(table, "model", "checkpoint")
    found = [table.filter(pa.array(which == code)) for code in range(int(which.max(initial=-1)) + 1)]
    order = {name: place for place, name in enumerate(frame.layers(table))}
    return sorted(map(_population, found), key=lambda each: order[each.layer])


def _population(rows: pa.Table) -> Population:
    alpha = frame.floats(frame.ok(rows), "alpha")
    fitted = alpha[np.isfinite(alpha)]
    first, *_ = frame.texts(rows, "layer")
    n, m = (frame.floats(rows, side)[0] for side in ("N", "M"))
    law, stands_for = (frame.texts(rows, name)[0] for name in ("law", "stands_for"))
    return Population(first, f"{n:.0f} x {m:.0f}", law, stands_for, np.sort(fitted), rows.num_rows - len(fitted))


def finding(each: Population) -> str:
    """How often alpha of a layer is in the range that is read as well trained."""
    low, high = RANGES[0]
    share, least, most = each.share(low, high)
    alpha = each.alpha
    return (
        f"Of {plural(len(alpha), 'fresh layer')} of {each.shape}, {100 * share:.1f} % [{100 * least:.1f}, "
        f"{100 * most:.1f}] have α in {low:g} to {high:g}, which is read as well trained; the median is "
        f"{number(float(np.median(alpha)), 2)}, and 90 % lie between {number(float(np.quantile(alpha, 0.05)), 2)} and "
        f"{number(float(np.quantile(alpha, 0.95)), 2)}." + _without(each)
    )


def _without(each: Population) -> str:
    return f" {plural(each.without, 'draw')} without a power law left out." if each.without else ""


# -- tables ------------------------------------------------------------------------------------------------------------


def numbers(found: Sequence[Population]) -> pa.Table:
    """A row a population: n, quantiles of alpha, and the shares of the ranges with their intervals."""
    rows = []
    for each in found:
        row: dict[str, str | int | float] = {"layer": each.layer, "shape": each.shape, "law": each.law}
        row |= {"stands_for": each.stands_for, "n": len(each.alpha), "without": each.without}
        row |= {f"q{100 * q:g}": float(np.quantile(each.alpha, q)) if len(each.alpha) else np.nan for q in QUANTILES}
        for low, high in RANGES:
            names = (f"p_{low:g}_{high:g}{end}" for end in ("", "_lo", "_hi"))
            row |= dict(zip(names, each.share(low, high), strict=True))
        rows.append(row)
    return pa.Table.from_pylist(rows)


def quantile_table(found: Sequence[Population]) -> TextTable:
    """Quantiles of alpha."""
    rows = [
        [each.title, f"{len(each.alpha):,}", *(number(row[f"q{100 * q:g}"], 2) for q in QUANTILES)]
        for each, row in zip(found, numbers(found).to_pylist(), strict=True)
    ]
    laws = listed(list(dict.fromkeys(each.law for each in found)), 4)
    return TextTable(
        "α of layers as they are initialised: quantiles",
        ["layer", "n", *(f"{100 * q:g} %" for q in QUANTILES)],
        rows,
        note=f"Initialised as {laws}." + "".join(f" {each.layer}:{_without(each)}" for each in found if each.without),
    )


def share_table(found: Sequence[Population]) -> TextTable:
    """How often alpha is in the ranges of the paper."""
    rows = []
    for each in found:
        shares = [each.share(low, high) for low, high in RANGES]
        cells = [f"{100 * p:.2f} [{100 * low:.2f}, {100 * high:.2f}]" if p == p else "–" for p, low, high in shares]
        rows.append([each.title, f"{len(each.alpha):,}", *cells])
    header = ["layer", "n", *(f"α in {low:g} to {high:g} [%]" for low, high in RANGES)]
    return TextTable("α of layers as they are initialised: ranges", header, rows, note="[ ]: Wilson's 95 % interval.")


# -- figure ------------------------------------------------------------------------------------------------------------


def histograms(found: Sequence[Population]) -> Picture:
    """A panel a population, alpha on a logarithmic axis, the paper's ranges shaded."""
    every = np.concatenate([each.alpha for each in found])
    edges = np.geomspace(min(every.min(), 1.9), every.max() * 1.001, BARS + 1)
    panels = [
        Panel(
            each.title, lambda ax, each=each: _histogram(ax, each, edges), note=_panel_note(each), width=3.6, height=2.7
        )
        for each in found
        if len(each.alpha)
    ]
    shaded = ", ".join(f"{low:g} to {high:g}" for low, high in RANGES)
    caption = (
        "Each layer drawn from its law of initialisation, never trained. Shaded, with the share of draws within: "
        f"{shaded}. Dashed: the median. Logarithmic axis; bars of equal ratio."
    )
    return Picture("alpha_at_init", "α of layers before any training", caption, panels, columns=3)


def _panel_note(each: Population) -> str:
    return f"{each.shape}, n = {len(each.alpha):,}"


def _histogram(ax: Axes, each: Population, edges: NDArray[np.float64]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    counts, _ = np.histogram(each.alpha, edges)
    share = 100 * counts / len(each.alpha)
    top = 1.28 * share.max()
    for (low, high), color in zip(RANGES, labels.RANGES, strict=False):
        ax.axvspan(low, high, color=color, alpha=0.13, linewidth=0)
        inside = f"{100 * each.share(low, high)[0]:.1f} %"
        ax.text(np.sqrt(low * high), 0.97 * top, inside, ha="center", va="top", fontsize=8, color=INK)
    ax.stairs(share, edges, fill=True, color="#757b87", linewidth=0)
    ax.axvline(float(np.median(each.alpha)), color=INK, linestyle=(0, (4, 3)), linewidth=1.2, ymax=0.82)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([2, 4, 6, 10, 20, 40, 80]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlim(1.9, edges[-1])
    ax.set_ylim(0, top)
    ax.grid(visible=False, axis="x")
    ax.set_axisbelow(True)
    ax.tick_params(axis="x", color=GRID)
    ax.set_xlabel("α")
    ax.set_ylabel("share of draws [%]")
