"""Figure 12: the third condition, a layer given the signs of its theta_0 on re-randomised magnitudes (green).

    python analysis/fcn_mnist/figure_12.py results/fcn_mnist [--output FOLDER]

Writes figure_12 (accuracy by layer) and figure_12_metrics (against the eight metrics), each as .png and .svg, and their
numbers as .md, .tex and .parquet. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import drawing
import numpy as np
import published
import pyarrow as pa
from study import PAIR, SIGNS, Study, by_metric, interval

from raylab.errors import UserError
from raylab.report import labels, publish
from raylab.report import target as targets
from raylab.report.by_layer import target_by_layer
from raylab.report.picture import Picture
from raylab.results import frame
from raylab.results.text import TextTable, number, p_value

NAME, METRICS = "figure_12", labels.PRIMARY
CONDITIONS = (*PAIR, SIGNS)


def by_layer(study: Study) -> Picture:
    """Accuracy after each layer is perturbed, under the three conditions."""
    drawn = target_by_layer(study.under(*CONDITIONS), targets.ACCURACY)
    if drawn is None or SIGNS not in frame.conditions(study.rows):
        raise UserError("No layer is given its initial signs here: run perturbations=[...,reinit_signs] as well.")
    return Picture(NAME, "Figure 12: initial signs on fresh magnitudes", drawn.caption, drawn.panels, drawn.keys)


def metrics(study: Study) -> Picture:
    """A panel a metric, under the three conditions."""
    rows, found = study.under(*CONDITIONS), study.correlations(METRICS, *CONDITIONS)
    within = [by_metric(found, "mean", name) for name in CONDITIONS]
    panels = [
        drawing.scatter(rows, metric, CONDITIONS, _note(row, [each[metric] for each in within]))
        for metric, row in by_metric(found, "mean").items()
    ]
    caption = (
        "A point is a model with one layer replaced. Above each panel: mean over layers of the correlation of all "
        "three conditions together, with its 95 % bootstrap interval, RMSE in points of accuracy; and within each."
    )
    title = "Figure 12: accuracy against the eight data-free metrics, three conditions"
    return Picture(f"{NAME}_metrics", title, caption, panels, drawing.keys(CONDITIONS))


def _note(row: dict, within: list[dict]) -> str:
    return "\n".join(line for line in drawing.note(row, within).split("\n") if not line.startswith("paper"))


def accuracies(study: Study) -> tuple[TextTable, pa.Table]:
    """Accuracy after each perturbation of each layer: to read, and as numbers."""
    lines, rows = [], []
    for condition in CONDITIONS:
        means = [
            frame.mean_over_models(frame.select(frame.ok(study.rows), layer, condition), "accuracy")
            for layer in published.LAYERS
        ]
        earlier = published.EARLIER_ACCURACY.get(condition, (np.nan,) * len(means))
        name = labels.style(condition).name
        lines.append((name, *(f"{number(100 * mean.mean, 2)} ± {number(100 * mean.sem, 2)}" for mean in means)))
        if condition in published.EARLIER_ACCURACY:
            lines.append((f"earlier, {published.EARLIER_MODELS} models", *(number(100 * each, 1) for each in earlier)))
        rows += [
            {"condition": condition, "layer": layer, "accuracy": mean.mean, "sem": mean.sem, "n": mean.n, "earlier": e}
            for layer, mean, e in zip(published.LAYERS, means, earlier, strict=True)
        ]
    note = (
        "Mean ± standard error over models. The paper shows these as figures only; for re-randomised layers 10 to 12 "
        "everywhere. With its initial signs on magnitudes that are not its own a layer does nearly as well as with its "
        "initial weights."
    )
    header = ("accuracy [%]", *(layer.upper() for layer in published.LAYERS))
    return TextTable("Accuracy by layer under three conditions", header, lines, note=note), pa.Table.from_pylist(rows)


def table(study: Study) -> tuple[TextTable, pa.Table]:
    """The correlations of the three conditions together and of each: to read, and as numbers."""
    found = study.correlations(METRICS, *CONDITIONS)
    columns = {name: by_metric(found, "mean", name) for name in ("all", *CONDITIONS)}
    header = ["metric", "n"]
    for name in columns:
        header += ["rho, all three" if name == "all" else f"rho within {labels.short(name)}", "p"]
    lines = []
    for metric in METRICS:
        rows = [each[metric] for each in columns.values()]
        cells = [cell for row in rows for cell in (interval(row, "rho"), p_value(row["rho_p"]))]
        lines.append((f"`{metric}`", f"{rows[0]['n']:,}", *cells))
    note = "Mean over layers. [ ]: 95 % bootstrap interval over models; p: permutations."
    return TextTable("Accuracy against the metrics, three conditions", header, lines, note=note), found


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the figures and their numbers."""
    study = Study.of(folder)
    for picture in (by_layer(study), metrics(study)):
        yield from publish.figure(output, picture)
    yield from publish.table(output, NAME, *accuracies(study))
    yield from publish.table(output, f"{NAME}_metrics", *table(study))


if __name__ == "__main__":
    publish.script(main, __doc__)
