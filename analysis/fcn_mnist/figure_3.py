"""Figure 3: accuracy against eight data-free metrics, each layer re-initialised (blue) and re-randomised (orange).

    python analysis/fcn_mnist/figure_3.py results/fcn_mnist [--output FOLDER]

Writes figure_3 and figure_3_rho (.png, .svg), and the correlations as figure_3.md, .tex, .parquet. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import drawing
import pyarrow as pa
from study import PAIR, Study, by_metric, mean_table, numbers

from raylab.report import labels, publish
from raylab.report.picture import Picture
from raylab.results.text import TextTable

NAME, METRICS = "figure_3", labels.PRIMARY


def picture(study: Study) -> Picture:
    """A panel a metric."""
    found = study.correlations(METRICS)
    within = [by_metric(found, "mean", name) for name in PAIR]
    panels = [
        drawing.scatter(study.pair, metric, PAIR, drawing.note(row, [rows[metric] for rows in within]))
        for metric, row in by_metric(found, "mean").items()
    ]
    caption = (
        "A point is a model with one layer replaced. Above each panel: mean over layers of the correlation of both "
        "conditions together, with its 95 % bootstrap interval, RMSE in points of accuracy; and within each condition."
    )
    return Picture(NAME, "Figure 3: accuracy against the eight data-free metrics", caption, panels, drawing.keys(PAIR))


def whiskers(study: Study, metrics: Sequence[str] = METRICS, name: str = f"{NAME}_rho") -> Picture:
    """Mean over layers of the correlation with each metric, together and within each condition."""
    size = (5.6, 1.0 + 0.36 * len(metrics))
    panel = drawing.mean_whiskers(study, metrics, [labels.metric(each) for each in metrics], size)
    caption = (
        "Mean over layers, with 95 % bootstrap intervals over models. Strokes: what a metric would have that tells the "
        "two groups apart and nothing else. A metric that tells how good a model is has the same sign in all three."
    )
    keys = drawing.keys(PAIR, markers=False) + drawing.whisker_keys(marks=bool(drawing.marks(metrics)))
    return Picture(name, "Correlation of accuracy with each metric", caption, [panel], keys)


def table(study: Study) -> tuple[TextTable, pa.Table]:
    """The correlations: to read, and as numbers."""
    found = study.correlations(METRICS)
    return mean_table(study, found, "Accuracy against the eight data-free metrics"), numbers(study, found)


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the figures and their numbers."""
    study = Study.of(folder)
    yield from publish.figure(output, picture(study))
    yield from publish.figure(output, whiskers(study))
    yield from publish.table(output, NAME, *table(study))


if __name__ == "__main__":
    publish.script(main, __doc__)
