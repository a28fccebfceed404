"""Figure 7: accuracy against eight data-free metrics by layer, re-initialised (blue) and re-randomised (orange).

    python analysis/fcn_mnist/figure_7.py results/fcn_mnist [--output FOLDER]

Writes figure_7.png, .svg, and the correlations by layer as figure_7.md, .tex, .parquet. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import drawing
import published
import pyarrow as pa
from study import PAIR, Study, by_place, layer_table, numbers

from raylab.report import labels, publish
from raylab.report.picture import Picture
from raylab.results.text import TextTable

NAME, METRICS = "figure_7", labels.PRIMARY


def picture(study: Study, metrics: Sequence[str] = METRICS, name: str = NAME) -> Picture:
    """A line of panels for each metric, a column for each layer."""
    found, panels = study.correlations(metrics), []
    for metric in metrics:
        together, *within = (by_place(found, metric, condition) for condition in ("all", *PAIR))
        for layer in published.LAYERS:
            at = layer.upper()
            note = f"{at}\n" + drawing.short_note(together[at], [rows[at] for rows in within])
            panels.append(drawing.scatter(study.pair, metric, PAIR, note, layer, small=True, size=(1.95, 1.75)))
    caption = (
        "A point is a model with that layer replaced. Above each panel: ρ of both conditions together | within "
        f"{' and within '.join(labels.style(each).name for each in PAIR)} rows; τ of both together."
    )
    title = f"Figure {name.split('_')[1]}: accuracy against each metric, by layer"
    return Picture(name, title, caption, panels, drawing.keys(PAIR, markers=False), columns=len(published.LAYERS))


def table(study: Study, metrics: Sequence[str] = METRICS) -> tuple[TextTable, pa.Table]:
    """The correlations by layer: to read, and as numbers."""
    found = study.correlations(metrics)
    return layer_table(study, found, "Accuracy against each metric, by layer"), numbers(study, found)


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the figure and its numbers."""
    study = Study.of(folder)
    yield from publish.figure(output, picture(study))
    yield from publish.table(output, NAME, *table(study))


if __name__ == "__main__":
    publish.script(main, __doc__)
