"""The page of a search: made-up samples of two retractions, one of them stopped early."""

import runpy
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylab.results import searched

SCRIPT = Path(__file__).parents[2] / "analysis" / "search.py"
SAMPLES = {("[qr]", 0.01): [0.5, 0.8], ("[qr]", 0.1): [0.3, 0.6], ("[qr]", 0.5): [0.1], ("[polar]", 0.02): [0.6, 0.7]}


@pytest.fixture
def folder(tmp_path):
    about = {"experiment": "mine", "replicate": 0, "perturbation": "original", "seed": 0, "layer": None, "status": "ok"}
    rows = [
        {**about, "trial_id": f"{method}{rate}{epoch}", "retractions": method, "learning_rate": rate}
        | {"epoch": epoch, "accuracy": accuracy, "seconds": 1.0}
        for (method, rate), course in SAMPLES.items()
        for epoch, accuracy in enumerate(course)
    ]
    table = pa.Table.from_pylist(rows)
    for name, kind in (("retractions", str), ("learning_rate", float)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, searched.field(name, name, "choice(...)", kind), table[name])
    (tmp_path / "trials").mkdir()
    pq.write_table(table, tmp_path / "trials" / "part-000001.parquet")
    return tmp_path


def script(monkeypatch, folder, output):
    monkeypatch.setattr(sys, "argv", ["search", str(folder), "--output", str(output)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_best_of_each_value_stands_beside_the_median_of_those_trained_as_long(folder, tmp_path, monkeypatch):
    ended = {"epochs": 1, "epochs_planned": 1, "ended": "finished"}
    searched.write_samples(folder, [{"retractions": "[qr]", "learning_rate": 0.01, "accuracy": 0.8, **ended}])
    script(monkeypatch, folder, tmp_path / "out")
    by = pq.read_table(tmp_path / "out" / "tables" / "mine_search_by_retractions.parquet").to_pylist()
    best = {row["retractions"]: (row["samples"], row["best_accuracy"], row["learning_rate"]) for row in by}
    assert best == {"[qr]": (3, 0.8, 0.01), "[polar]": (1, 0.7, 0.02)}
    assert [(row["as_long"], row["median_accuracy"]) for row in by] == [(2, pytest.approx(0.7)), (1, 0.7)]
    page = (tmp_path / "out" / "mine_search.md").read_text()
    assert "the best reaches an accuracy of 80.00 %" in page and "**Samples: 1, best first**" in page
    assert "](figures/mine_search_samples.png)" in page
    assert (tmp_path / "out" / "figures" / "mine_search_samples.png").stat().st_size


def test_rows_of_no_search_are_refused_in_one_line(folder, tmp_path, monkeypatch, capsys):
    part = folder / "trials" / "part-000001.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["retractions", "learning_rate"]), part)
    with pytest.raises(SystemExit, match="2"):
        script(monkeypatch, folder, tmp_path / "out")
    assert "is not of a search" in capsys.readouterr().err
