"""Tables as text: one content for terminal, Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table

GAP = 2  # spaces between columns, one of them the divider that rich draws
NARROW = 30  # a text that may be wrapped gets at least so many characters, if it has them


@dataclass(frozen=True)
class TextTable:
    """Cells as text. The columns whose places are in `texts` are flush left; the others are numbers, flush right.

    `rich.print(table)` shows it. Where it is wider than the terminal, its columns go into several blocks that repeat
    the first one: a number is never wrapped or cut. A text in the last column may be wrapped.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Collection[int] = (0,)
    note: str = ""

    def markdown(self) -> str:
        """For a README or a notebook."""
        rule = ["---" if place in self.texts else "---:" for place in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        body = "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)
        title = f"**{self.title}**\n\n" if self.title else ""
        return title + body + "\n" + (f"\n{self.note}\n" if self.note else "")

    def latex(self) -> str:
        """For a paper: a tabular with booktabs' rules, without title and note."""
        columns = "".join("l" if place in self.texts else "r" for place in range(len(self.header)))
        head, *lines = (" & ".join(map(_harmless, line)) + r" \\" for line in (self.header, *self.rows))
        begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
        return "\n".join([begin, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", end]) + "\n"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        blocks = self._blocks(options.max_width)
        for place, block in enumerate(blocks):
            table: Table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
            for column in block:
                justify: Any = "left" if column in self.texts else "right"
                table.add_column(_one_line(self.header[column]), justify=justify, no_wrap=not self._wraps(column))
            for row in self.rows:
                table.add_row(*(_one_line(row[column]) for column in block))
            if place == 0 and self.title:
                yield f"[bold]{_escape(self.title)}[/]"
            yield table
            yield ""
        if self.note:
            yield f"[dim]{_escape(self.note)}[/]\n"

    def _wraps(self, column: int) -> bool:
        return column in self.texts and column == len(self.header) - 1 > 0

    def _blocks(self, width: int) -> list[list[int]]:
        """Columns that fit side by side, the first one in every block."""
        if not self.header:
            return []
        cells = [[name, *(row[place] for row in self.rows)] for place, name in enumerate(self.header)]
        wide = [max(map(cell_len, map(_one_line, column))) + GAP for column in cells]
        if self._wraps(len(wide) - 1):
            wide[-1] = min(wide[-1], NARROW)
        blocks, used = [[0]], wide[0]
        for place in range(1, len(wide)):
            if used + wide[place] > width and len(blocks[-1]) > 1:
                blocks.append([0])
                used = wide[0]
            blocks[-1].append(place)
            used += wide[place]
        return blocks


def _one_line(cell: str) -> str:
    return _escape(" ".join(cell.split()))


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


def _plain(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def _harmless(text: str) -> str:
    """Text with LaTeX's own characters written out."""
    for plain, written in (("\\", r"\textbackslash "), ("±", r"$\pm$"), ("–", "--"), *((c, rf"\{c}") for c in "%_&#")):
        text = text.replace(plain, written)
    return text


def number(value: float | None, digits: int = 3) -> str:
    """A number to read, with so many decimals: 0.123, -1.234; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def with_error(value: float, error: float, digits: int) -> str:
    """A number to read, with its error where there is one: 0.123 ± 0.004."""
    return number(value, digits) + (f" ± {number(error, digits)}" if math.isfinite(error) else "")


def significant(value: float | None, digits: int = 4) -> str:
    """A number to read, with so many significant digits, whatever its size: 0.001234, 1.234e+08."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def p_value(value: float | None) -> str:
    """A p-value to read: no more digits than the permutations can bear."""
    return "<.001" if value is not None and value < 0.001 else number(value)


def perplexity(value: float) -> str:
    """A perplexity to read: 29.94, 1.23e+08; infinite where it has overflown."""
    return "∞" if value == math.inf else f"{value:,.2f}" if value < 1e4 else significant(value, 3)
