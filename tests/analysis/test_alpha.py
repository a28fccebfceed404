"""From fresh layers to models that are trained with alpha fixed, and the three scripts that tell of them."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raylab.results import load
from raylab.run import main

SCRIPTS = Path(__file__).parents[2] / "analysis"
MODEL = ["model.width=16", "model.depth=3", "cluster=inline", "progress=none"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")

    def run(name, *words):
        assert main([f"experiment={name}", *MODEL, f"results={folder / name}", *words]) == 0

    run("alpha_at_init", "model.inputs=64", "draws=150")
    made_of = [f"pool={folder / 'alpha_at_init'}", "data=digits", "models=2", "ranges=[[2,4],[5,9]]"]
    run("models_by_alpha", *made_of)
    run("alpha_fixed", *made_of, "train.epochs=2", "retractions=[newton_schulz,free]")
    return folder


@pytest.fixture
def written(results, tmp_path, monkeypatch, capsys):
    def run(script):
        monkeypatch.setattr(sys, "argv", [script, str(results / script), "--output", str(tmp_path)])
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
        files = [Path(line) for line in capsys.readouterr().out.split()]
        page = (tmp_path / f"{script}.md").read_text()
        assert all(path.stat().st_size for path in files) and str(tmp_path.parent) not in page
        pictures = [path.name for path in files if path.suffix == ".png"]
        assert pictures and all(f"](figures/{name})" in page for name in pictures)
        return {path.name: path for path in files}

    return run


def test_quantiles_of_fresh_layers_are_those_of_the_rows(results, written):
    table = pq.read_table(written("alpha_at_init")["alpha_at_init.parquet"]).to_pylist()
    rows = load(results / "alpha_at_init")
    for row in table[:-1]:
        alpha = rows.filter(pc.equal(rows["layer"], row["layer"]))["alpha"].to_numpy()
        alpha = alpha[np.isfinite(alpha)]
        assert row["q50"] == np.median(alpha) and row["p_2_6"] == np.mean((alpha >= 2) & (alpha <= 6))
    assert (table[-1]["by"], table[-1]["q50"]) == ("earlier", 9.2)


def test_tables_4_and_5_are_of_models_with_and_without_biases(results, written):
    files = written("models_by_alpha")
    rows = load(results / "models_by_alpha").to_pandas()
    for stem, biases in (("table_4", "drawn"), ("table_5", "zero")):
        for row in pq.read_table(files[f"models_by_alpha_{stem}.parquet"]).to_pylist():
            mine = rows[(rows.biases == biases) & (rows.alpha_range == row["alpha_range"])]
            assert row["n"] == 2 and row["accuracy"] == pytest.approx(100 * mine[mine.layer.isna()].accuracy.mean())
            assert row["alpha_fc2"] == pytest.approx(mine[mine.layer == "fc2"].alpha.mean())


def test_table_6_says_what_was_reached_and_what_moved(results, written):
    rows = load(results / "alpha_fixed").to_pandas()
    found = pq.read_table(written("alpha_fixed")["alpha_fixed_table_6.parquet"]).to_pylist()
    assert [(row["retraction"], row["alpha_range"], row["epoch"]) for row in found] == [
        (how, within, 2) for how in ("newton_schulz", "free") for within in ("[2, 4]", "[5, 9]")
    ]
    for row in found:
        mine = rows[(rows.retraction == row["retraction"]) & (rows.alpha_range == row["alpha_range"])]
        last = mine[(mine.epoch == 2) & mine.layer.isna()]
        assert row["accuracy"] == pytest.approx(100 * last.accuracy.mean())
        moved = [
            float(np.abs(each.sort_values("epoch").alpha - each[each.epoch == 0].alpha.iloc[0]).max())
            for _, each in mine[mine.layer.notna()].groupby(["replicate", "layer"])
        ]
        assert row["moved"] == pytest.approx(max(moved))
        assert row["moved"] < 1e-9 if row["retraction"] == "newton_schulz" else row["moved"] > 1e-3
