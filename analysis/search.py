r"""What a search with Ray Tune has found: every sample, what became of it, and the best of each kind.

    python -m raylab.tune experiment=alpha_fixed pool=results/alpha_at_init data.root=FOLDER results=results/search \
      models=1 "ranges=[[2,6]]" train.epochs=10 "train.learning_rate=tag(log,interval(1e-3,1e-1))" \
      "retractions=choice([newton_schulz],[qr],[polar])" tune.search=optuna tune.scheduler=asha tune.samples=24
    python analysis/search.py results/search --output analysis

The page is called after the experiment. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raylab.errors import UserError
from raylab.report import publish, samples
from raylab.report.search import Sample, Search
from raylab.results import load, read_run_info, searched
from raylab.results.text import TextTable


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the page, the figure and the tables."""
    rows, info, kept = load(folder), read_run_info(folder), searched.read_samples(folder)
    if not Search.of(rows):
        raise UserError(f"{folder} is not of a search: give results of raylab.tune with a searched key.")
    view = Search(rows)
    metric, name = view.target.column, f"{publish.experiment(rows)}_search"
    parts = [
        "# A search\n",
        f"```bash\n{publish.command(info)}\npython analysis/search.py RESULTS --output analysis\n```\n",
        f"{publish.provenance(rows, info)}\n",
        "\n".join(f"- {sentence}" for sentence in view.findings()) + "\n",
    ]
    for picture in view.pictures():
        picture = replace(picture, name=f"{name}_{picture.name}")
        yield from publish.figure(output / "figures", picture)
        parts.append(publish.embedded(picture, f"figures/{picture.name}.png"))
    for key in view.keys:
        text, numbers = best_of_each(view.samples, key, metric)
        if text.rows:
            yield from publish.table(output / "tables", f"{name}_by_{key}", text, numbers)
            parts.append(text.markdown())
    if kept is not None:  # else it is unfinished, and the figure says as much as is known
        ranked_by = kept.column_names[kept.column_names.index(samples.EPOCHS) - 1]  # tune.metric may be another
        text = samples.samples_table(kept, ranked_by)
        yield from publish.table(output / "tables", name, text, kept)
        parts.append(text.markdown())
    page = output / f"{name}.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    yield page


def best_of_each(found: Sequence[Sample], key: str, metric: str) -> tuple[TextTable, pa.Table]:
    """The best sample for each value of a key that is chosen from a list; without lines for one from an interval."""
    by: dict[str, list[Sample]] = {}
    for each in found:
        if isinstance(each.values[key], str):
            by.setdefault(each.values[key], []).append(each)
    rows = []
    for value, here in by.items():  # best first, as the samples are
        others = {name: given for name, given in here[0].values.items() if name != key}
        finished = [each.last for each in here if each.epochs[-1] == here[0].epochs[-1]]
        row = {key: value, "samples": len(here), f"best_{metric}": here[0].last, "epochs": float(here[0].epochs[-1])}
        rows.append({**row, "as_long": len(finished), f"median_{metric}": float(np.median(finished)), **others})
    names = [name for name in found[0].values if name != key] if found else []
    header = (key, "samples", f"best {metric}", "epochs", *(f"its {name}" for name in names), "as long", "their median")
    lines = [
        [
            row[key],
            str(row["samples"]),
            samples.shown(row[f"best_{metric}"], metric),
            f"{row['epochs']:g}",
            *(samples.told(row[name]) for name in names),
            str(row["as_long"]),
            samples.shown(row[f"median_{metric}"], metric),
        ]
        for row in rows
    ]
    note = (
        "As long: samples that were trained for as many epochs as the best of their line; their median. A search does "
        "not try all values alike: a line whose samples were few, or all stopped early, says little of its value."
    )
    return TextTable(f"The best of each {key}", header, lines, note=note), pa.Table.from_pylist(rows)


if __name__ == "__main__":
    publish.script(main, __doc__)
