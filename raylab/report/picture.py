"""A figure as panels: drawn together into a file, or one by one into a page that arranges them itself."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, PAPER = "#22262e", "#d8dce3", "#ffffff"
FILES = (".png", ".svg", ".pdf")
ACCURACIES = (10, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)  # [%]: ticks of an axis by the error
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.1,
    "axes.unicode_minus": True,
    "text.hinting": "none",  # as wide when the layout is found as in the file, whose dpi are others
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "raylab",
}


@dataclass(frozen=True)
class Key:
    """An entry of the legend: a colour, a marker, or both; `hollow`: the outline of the marker."""

    text: str
    color: str | None = None
    marker: str = "o"
    hollow: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes; `draw` fills them, `note` stands above. Size in inches."""

    title: str
    draw: Callable[[Axes], None]
    note: str = ""
    width: float = 2.9
    height: float = 2.5

    def fill(self, ax: Axes) -> None:
        """Draw into these axes."""
        self.draw(ax)
        if self.note:
            ax.set_title(self.note)


@dataclass(frozen=True)
class Picture:
    """A figure of the report. `same_rows`: in one figure, the names at the left stand at the first panel only."""

    name: str  # of its files
    title: str
    caption: str
    panels: Sequence[Panel]
    keys: Sequence[Key] = ()
    columns: int = 4
    same_rows: bool = False

    def save(self, target: str | Path) -> list[Path]:
        """All panels in one figure: a file (.png, .svg, .pdf), or a folder for <name>.png and <name>.svg."""
        target = Path(target)
        alone = target.suffix in FILES
        targets = [target] if alone else [target / f"{self.name}.{kind}" for kind in ("png", "svg")]
        targets[0].parent.mkdir(parents=True, exist_ok=True)
        with _styled():
            figure = _laid_out(self._together())
            for each in targets:
                metadata = {"Date": None} if each.suffix == ".svg" else {}
                figure.savefig(each, facecolor=PAPER, metadata=metadata)
        return targets

    def figure(self) -> Figure:
        """All panels in one matplotlib figure."""
        with _styled():
            return self._together()

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        data = io.BytesIO()
        with _styled():
            _laid_out(self._together()).savefig(data, format="png", facecolor=PAPER, dpi=110)
        return data.getvalue()

    def inline(self) -> list[str]:
        """Each panel as SVG for an HTML page, in the page's own colours: var(--ink), var(--grid)."""
        with _styled():
            return [_inline(panel, f"{self.name}-{at}-") for at, panel in enumerate(self.panels)]

    def _together(self) -> Figure:
        columns = min(self.columns, len(self.panels))
        rows = -(-len(self.panels) // columns)
        width, height = self.panels[0].width, self.panels[0].height
        across, lines = self._legend(columns * width)
        figure = _figure(columns * width, rows * height + 0.28 * lines)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, ax in zip(self.panels, axes, strict=False):
            panel.fill(ax)
        if self.same_rows:
            for at, ax in enumerate(axes):
                ax.tick_params(axis="y", labelleft=at % columns == 0)
        for ax in axes[len(self.panels) :]:
            ax.set_axis_off()
        if self.keys:
            figure.legend(handles=_handles(self.keys), loc="outside upper center", ncols=across)
        return figure

    def _legend(self, width: float) -> tuple[int, int]:
        """How many columns of the legend fit side by side, filled from top to bottom, and in how many lines."""
        wide = [0.36 + 0.062 * len(key.text) for key in self.keys]
        for across in range(len(wide), 0, -1):
            lines = -(-len(wide) // across)
            if across == 1 or sum(max(wide[k : k + lines]) for k in range(0, len(wide), lines)) <= width:
                return -(-len(wide) // lines), lines
        return 1, 0


def by_error(ax: Axes, lowest: float, highest: float) -> None:
    """The vertical axis, of accuracies [%], by the logarithm of the error: from 90 to 99 % much happens.

    lowest, highest: of what is drawn. An error of less than 0.01 %, or of none, is drawn as 0.01 %.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_yscale("function", functions=(lambda a: -np.log10(np.maximum(100 - a, 0.01)), lambda x: 100 - 10.0**-x))
    ax.yaxis.set_major_locator(FixedLocator(ACCURACIES))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda accuracy, _: f"{accuracy:g}"))
    ax.set_ylim(max(lowest - 4, 0), next((top for top in (99, 99.9) if highest < top - (100 - top) / 10), 99.99))


def _figure(width: float, height: float) -> Figure:
    """A figure that no window system and no global state knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _laid_out(figure: Figure) -> Figure:
    """The same figure, its layout found once: matplotlib finds it, and draws, twice for each file that is saved."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine(None)
    return figure


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(_RC):
        yield


def _handles(keys: Sequence[Key]) -> list[Any]:
    from matplotlib.lines import Line2D

    # A key without a colour stands for a marker, whatever the colour: grey.
    return [
        Line2D(
            [], [], linestyle="", marker=key.marker, color=key.color or "#8a909c", label=key.text, markersize=6,
            fillstyle="none" if key.hollow else "full",
        )
        for key in keys
    ]  # fmt: skip


def _inline(panel: Panel, prefix: str) -> str:
    figure = _figure(panel.width, panel.height)
    panel.fill(figure.subplots())
    text = io.StringIO()
    _laid_out(figure).savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return page_svg(text.getvalue(), panel.title, prefix)


def page_svg(svg: str, title: str, prefix: str) -> str:
    """matplotlib's SVG made part of a page: as wide as its place, ids of its own, no namespace, theme colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box, "matplotlib writes a viewBox"
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r"url\(#", f"url(#{prefix}", body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}', body)
    body = body.replace("xlink:href=", "href=").replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg {box[0]} role="img" aria-label="{label}">{body}'
