"""Table 1: alpha of the trained layers FC1 to FC6 and the test accuracy, mean ± SEM over models.

    python analysis/fcn_mnist/table_1.py results/fcn_mnist [--output FOLDER]

Writes table_1.md, .tex, .parquet, and table_1_fc6 of the same kinds: alpha of FC6 by how many of its ten eigenvalues
the fit keeps. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import published
import pyarrow as pa
from study import Study, signed

from raylab.report import publish
from raylab.results import frame
from raylab.results.text import TextTable, number
from raylab.types import ORIGINAL

NAME, LAST = "table_1", published.LAYERS[-1]
TEN = 10  # models of which one more standard error is shown


def numbers(study: Study) -> pa.Table:
    """A row a quantity: measured, published, and their difference."""
    ok = frame.ok(study.rows)
    measured = {"test accuracy [%]": (frame.mean_over_models(frame.select(ok, "", None), "accuracy"), 100)}
    for layer in published.LAYERS:
        rows = frame.select(ok, layer, ORIGINAL)
        measured[f"alpha {layer.upper()}"] = (frame.mean_over_models(rows, "alpha"), 1)
    lines = []
    given = (published.ACCURACY, *published.ALPHA.values())
    for (name, (mean, scale)), (value, sem) in zip(measured.items(), given, strict=True):
        sd = mean.sem * np.sqrt(mean.n)
        lines.append(
            {
                "quantity": name, "mean": scale * mean.mean, "sem": scale * mean.sem, "n": mean.n,
                "published_mean": scale * value, "published_sem": scale * sem, "published_n": published.MODELS,
                "difference": scale * (mean.mean - value),
                "combined_sems": (mean.mean - value) / np.hypot(mean.sem, sem),
                "sd": scale * sd, "sem_of_ten": scale * sd / np.sqrt(TEN),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(lines)


def table(study: Study) -> tuple[TextTable, pa.Table]:
    """Table 1: to read, and as numbers."""
    found = numbers(study)
    lines = [
        (
            row["quantity"], f"{number(row['mean'])} ± {number(row['sem'])}", str(row["n"]),
            f"{number(row['published_mean'])} ± {number(row['published_sem'])}", signed(row["difference"]),
            signed(row["combined_sems"], 1), number(row["sd"]), number(row["sem_of_ten"]),
        )
        for row in found.to_pylist()
    ]  # fmt: skip
    header = (
        "", "measured (mean ± SEM)", "n", f"published (n = {published.MODELS})", "difference", "in combined SEM",
        "SD over models", f"SEM that {TEN} models would have",
    )  # fmt: skip
    note = "The paper does not print its training recipe; the one used here is the nearest that was found."
    return TextTable("Table 1", header, lines, note=note), found


def fc6(study: Study) -> tuple[TextTable, pa.Table]:
    """alpha of the trained FC6 by the number of eigenvalues in the fitted tail: to read, and as numbers."""
    rows = frame.select(frame.ok(study.rows), LAST, ORIGINAL)
    alpha, tail = frame.floats(rows, "alpha"), frame.floats(rows, "num_tail")
    fitted, lines = np.isfinite(alpha), []
    for length in np.unique(tail[fitted]):
        here = alpha[fitted & (tail == length)]
        lines.append({"num_tail": int(length), "models": len(here), "alpha": here.mean(), "low": here.min()})
        lines[-1]["high"] = here.max()
    cells = [
        (str(row["num_tail"]), str(row["models"]), *(number(row[name], 2) for name in ("alpha", "low", "high")))
        for row in lines
    ]
    header = ("eigenvalues in the tail", "models", "mean alpha", "lowest", "highest")
    note = (
        "FC6 has ten eigenvalues. alpha is large where the fit keeps the largest few of them and near 2 where it keeps "
        "nearly all: its mean says how often it does which."
    )
    title = "alpha of the trained FC6, by where the fit begins"
    return TextTable(title, header, cells, texts=(), note=note), pa.Table.from_pylist(lines)


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write both tables."""
    study = Study.of(folder)
    yield from publish.table(output, NAME, *table(study))
    yield from publish.table(output, f"{NAME}_{LAST}", *fc6(study))


if __name__ == "__main__":
    publish.script(main, __doc__)
