"""Beyond the paper: what its three questions say of every metric, as numbers with intervals.

python analysis/fcn_mnist/verdict.py results/fcn_mnist [--output FOLDER]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from study import Study

from raylab.report import publish
from raylab.report.scoreboard import Scoreboard
from raylab.results import standing
from raylab.results.text import TextTable

BOARD, SWEEP = "scoreboard", "scoreboard_sweep"


def tables(found: Scoreboard) -> list[tuple[str, TextTable, pa.Table]]:
    """The scoreboard, and the AUC by what is called robust, with the numbers behind each."""
    numbers = (standing.table(found.found), found.evidence)
    return list(zip((BOARD, SWEEP), found.tables(), numbers, strict=False))


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the figure and the tables."""
    found = Study.of(folder).scores
    for picture in found.pictures():
        yield from publish.figure(output, picture)
    for stem, text, numbers in tables(found):
        yield from publish.table(output, stem, text, numbers)


if __name__ == "__main__":
    publish.script(main, __doc__)
