"""Paper 1, Tables 4 and 5: the accuracy of untrained models whose every layer has alpha in a chosen range.

    python -m raylab.run experiment=alpha_at_init draws=15000
    python -m raylab.run experiment=models_by_alpha pool=results/alpha_at_init data.root=FOLDER
    python analysis/models_by_alpha.py results/models_by_alpha --output analysis

Published: "Efficacy of data-free metrics: robust and critical evidence from robust and critical layers": accuracy
between 9.9 and 10.3 % whatever alpha, 100 models a range, with and without biases. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raylab.errors import UserError
from raylab.report import publish, untrained
from raylab.results import frame, load, read_run_info

TABLES = {"drawn": "table_4", "zero": "table_5"}
PUBLISHED = "Published: between 9.9 and 10.3 % in every range."


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the page, the figure and both tables."""
    rows, info = load(folder), read_run_info(folder)
    if not untrained.Untrained.of(rows):
        raise UserError(f"{folder} is not of untrained models: give results of experiment=models_by_alpha.")
    view = untrained.Untrained(rows)
    found = view.groups
    picture = replace(untrained.accuracies(found), name="models_by_alpha")
    yield from publish.figure(output / "figures", picture)
    parts = [
        "# Untrained models by α\n",
        f"```bash\n{publish.command(info)}\npython analysis/models_by_alpha.py RESULTS --output analysis\n```\n",
        f"{publish.provenance(rows, info)} {pooled(rows)}\n",
        publish.embedded(picture, f"figures/{picture.name}.png"),
        "\n".join(f"- {sentence}" for sentence in view.findings()) + "\n",
    ]
    for biases, stem in TABLES.items():
        text = untrained.range_table(found, biases)
        if text:
            text = replace(text, note=f"{text.note} {PUBLISHED}")
            parts.append(text.markdown())
            here = [each for each in found if each.biases == biases]
            yield from publish.table(output / "tables", f"models_by_alpha_{stem}", text, untrained.numbers(here))
    page = output / "models_by_alpha.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    yield page


def pooled(rows: pa.Table) -> str:
    """How deep into the pool the models reach, for whichever layer reaches deepest."""
    draw = frame.floats(frame.ok(rows), "pool_draw")
    last = draw[np.isfinite(draw)].max()
    return (
        f"Models are made by rejection from draws that all ranges share; the last that one took is number {last:,.0f}."
    )


if __name__ == "__main__":
    publish.script(main, __doc__)
