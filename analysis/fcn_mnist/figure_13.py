"""Figure 13: accuracy against three data-based metrics by layer, re-initialised (blue) and re-randomised (orange).

    python analysis/fcn_mnist/figure_13.py results/fcn_mnist [--output FOLDER]

Writes figure_13.png, .svg, and the correlations by layer as figure_13.md, .tex, .parquet. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import figure_7
from study import Study

from raylab.report import labels, publish

NAME, METRICS = "figure_13", labels.SIMILARITY


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the figure and its numbers."""
    study = Study.of(folder)
    yield from publish.figure(output, figure_7.picture(study, METRICS, NAME))
    yield from publish.table(output, NAME, *figure_7.table(study, METRICS))


if __name__ == "__main__":
    publish.script(main, __doc__)
