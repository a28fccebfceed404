"""Figure 4: accuracy against three data-based metrics, each layer re-initialised (blue) and re-randomised (orange).

    python analysis/fcn_mnist/figure_4.py results/fcn_mnist [--output FOLDER]

Activation disagreement, Jensen-Shannon divergence of layer outputs, linear CKA, all to the trained model's layer.
Writes figure_4.png, .svg, and the correlations as figure_4.md, .tex, .parquet. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import drawing
import pyarrow as pa
from study import PAIR, Study, by_metric, mean_table, numbers

from raylab.report import labels, publish
from raylab.report.picture import Picture
from raylab.results.text import TextTable

NAME, METRICS = "figure_4", labels.SIMILARITY


def picture(study: Study) -> Picture:
    """A panel a metric, and the correlations with each."""
    found = study.correlations(METRICS)
    size = (4.0, 3.1)
    within = [by_metric(found, "mean", name) for name in PAIR]
    panels = [
        drawing.scatter(study.pair, metric, PAIR, drawing.note(row, [rows[metric] for rows in within]), size=size)
        for metric, row in by_metric(found, "mean").items()
    ]
    names = [labels.metric(each).replace(" ", "\n") for each in METRICS]
    panels.append(drawing.mean_whiskers(study, METRICS, names, size))
    caption = (
        "A point is a model with one layer replaced. Above each panel: mean over layers of the correlation of both "
        "conditions together, with its 95 % bootstrap interval, RMSE in points of accuracy; and within each condition. "
        "Last panel: the same; strokes: what telling the two groups apart gives alone."
    )
    keys = drawing.keys(PAIR) + drawing.whisker_keys(marks=True)
    return Picture(NAME, "Figure 4: accuracy against three data-based metrics", caption, panels, keys, columns=2)


def table(study: Study) -> tuple[TextTable, pa.Table]:
    """The correlations: to read, and as numbers."""
    found = study.correlations(METRICS)
    return mean_table(study, found, "Accuracy against three data-based metrics"), numbers(study, found)


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the figure and its numbers."""
    study = Study.of(folder)
    yield from publish.figure(output, picture(study))
    yield from publish.table(output, NAME, *table(study))


if __name__ == "__main__":
    publish.script(main, __doc__)
