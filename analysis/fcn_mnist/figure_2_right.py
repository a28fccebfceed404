"""Figure 2 right: alpha against accuracy, each layer re-initialised (blue) and re-randomised (orange).

    python analysis/fcn_mnist/figure_2_right.py results/fcn_mnist [--output FOLDER]

Writes figure_2_right.png, .svg, and the correlations by layer as figure_2_right.md, .tex, .parquet. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import drawing
import published
import pyarrow as pa
from study import PAIR, Study, by_place, layer_table, numbers

from raylab.report import publish
from raylab.report.picture import Picture
from raylab.results.text import TextTable

NAME, METRIC = "figure_2_right", "alpha"


def picture(study: Study) -> Picture:
    """alpha against accuracy, and its correlation within each layer, on average, and pooled."""
    found = study.correlations([METRIC])

    series = drawing.series(lambda condition: list(by_place(found, METRIC, condition).values()))
    alone = [*map(study.separation, published.LAYERS), study.mean_separation(), study.separation(None)]
    size = (4.4, 3.4)
    marks = {len(published.LAYERS): published.CORRELATIONS[METRIC][0]}
    above = drawing.note(by_place(found, METRIC)["mean"], [])
    panels = [
        drawing.scatter(study.pair, METRIC, PAIR, above, size=size),
        drawing.whiskers(list(by_place(found, METRIC)), series, alone, marks, size=size),
    ]
    caption = (
        "Left: a point is a model with one layer replaced; ρ, τ, RMSE (in points of accuracy): means over layers. "
        "Right: the correlation of the points within each layer, its mean over layers, and of all points pooled, with "
        "95 % bootstrap intervals. A metric that tells the two groups apart and nothing else would lie on the strokes."
    )
    keys = drawing.keys(PAIR) + drawing.whisker_keys(marks=True)
    return Picture(NAME, "Figure 2 right: α against accuracy", caption, panels, keys, columns=2)


def table(study: Study) -> tuple[TextTable, pa.Table]:
    """The correlations by layer: to read, and as numbers."""
    found = study.correlations([METRIC])
    return layer_table(study, found, "Accuracy against alpha by layer"), numbers(study, found)


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the figure and its numbers."""
    study = Study.of(folder)
    yield from publish.figure(output, picture(study))
    yield from publish.table(output, NAME, *table(study))


if __name__ == "__main__":
    publish.script(main, __doc__)
