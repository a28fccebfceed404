"""What a script of analysis/ does with what it found: a table in three formats, a figure in two, errors in one line.

def main(folder: str, output: Path) -> Iterator[Path]:
    rows = load(folder)
    yield from publish.table(output, "table_1", text_of(rows), numbers_of(rows))
    yield from publish.figure(output, picture_of(rows))

if __name__ == "__main__":
    publish.script(main, __doc__)

python analysis/NAME.py RESULTS [--output FOLDER]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylab.arguments import Parser
from raylab.errors import UserError
from raylab.places import is_url
from raylab.report.picture import Picture
from raylab.results import frame
from raylab.results.text import TextTable

FOLDER = "analysis"  # of a results folder: where files go unless --output says otherwise


def table(folder: str | Path, stem: str, text: TextTable, numbers: pa.Table) -> list[Path]:
    """Write <folder>/<stem>.md and .tex, to read, and .parquet: the same numbers in full precision."""
    made = [Path(folder) / f"{stem}.{kind}" for kind in ("md", "tex", "parquet")]
    made[0].parent.mkdir(parents=True, exist_ok=True)
    made[0].write_text(text.markdown(), encoding="utf-8")
    made[1].write_text(text.latex(), encoding="utf-8")
    pq.write_table(numbers, made[2])
    return made


def figure(folder: str | Path, picture: Picture) -> list[Path]:
    """Write <folder>/<name of the picture>.png and .svg."""
    return picture.save(Path(folder))


def embedded(picture: Picture, file: str) -> str:
    """A figure in a Markdown page, with its caption; `file`: where it lies, seen from the page."""
    return f"![{picture.title}]({file})\n\n*{picture.title}. {picture.caption}*\n"


def command(info: dict[str, Any]) -> str:
    """The command that made these results; of absolute paths the last part, as other machines have other folders."""
    return re.sub(r"(?<==)[~/]\S*/(?=[^/\s])", "", str(info.get("command", "")))


def experiment(rows: pa.Table) -> str:
    """The name of the experiment that rows are of."""
    return next(filter(None, frame.texts(rows, "experiment")))


def provenance(rows: pa.Table, info: dict[str, Any]) -> str:
    """What was run, as a sentence: rows, of how many planned; failures; work; code and configuration."""
    failed = int(np.sum(frame.texts(rows, "status") == "failed"))
    hours = np.nansum(frame.floats(rows, "seconds")) / 3600
    planned = int(info.get("planned") or rows.num_rows)
    unfinished = f" of {planned:,} planned (unfinished)" if planned > rows.num_rows else ""
    return (
        f"{rows.num_rows:,} rows{unfinished}, {failed:,} failed; {hours:.2f} core-hours of work in the rows; "
        f"code {info.get('code', '')}, config digest `{info.get('digest', '')}`."
    )


def script(
    main: Callable[[Any, Path], Iterable[Path]],
    about: str | None,
    several: bool = False,
    argv: Sequence[str] | None = None,
) -> None:
    """Run `main(results, output)` on the command line's arguments and print each file that it wrote.

    `about`: the script's docstring, for --help. `several`: results is a list of folders, of one or more, else one
    folder. --output is by default FOLDER in the (first) results folder. Bad input is one line and exit code 2.
    """
    name = Path(sys.argv[0]).stem
    parser = Parser(name, about)
    parser.add_argument("results", metavar="RESULTS", nargs="+" if several else None, help="results folder of a run")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help=f"where files go; default: RESULTS/{FOLDER}")
    given = parser.parse_args(argv)
    first = given.results[0] if several else given.results
    try:
        if given.output is None and is_url(first):
            raise UserError(f"{first} is no folder of this machine, which files go to: give --output FOLDER.")
        for path in main(given.results, given.output or Path(first) / FOLDER):
            print(path)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
