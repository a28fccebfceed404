"""The tables and figures of Paper 1, small scale, from a made-up results folder."""

import importlib
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raylab.report.picture import Picture
from raylab.results import load, rank
from raylab.results.correlate import STATISTICS, correlate
from tests import made_up

SCRIPTS = Path(__file__).parents[2] / "analysis" / "fcn_mnist"
MODELS = 6
TABLE, FIGURE = ("md", "tex", "parquet"), ("png", "svg")
FILES = {
    "table_1": {"table_1": TABLE, "table_1_fc6": TABLE},
    "figure_2_right": {"figure_2_right": TABLE + FIGURE},
    "figure_3": {"figure_3": TABLE + FIGURE, "figure_3_rho": FIGURE},
    "figure_4": {"figure_4": TABLE + FIGURE},
    "figure_7": {"figure_7": TABLE + FIGURE},
    "figure_12": {"figure_12": TABLE + FIGURE, "figure_12_metrics": TABLE + FIGURE},
    "figure_13": {"figure_13": TABLE + FIGURE},
    "verdict": {"scoreboard": TABLE + FIGURE, "scoreboard_sweep": TABLE},
}
DRAWN = "figure_2_right"  # for real; of the others only the first and the last panel: dozens take seconds


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return made_up.folder(tmp_path_factory.mktemp("fcn_mnist"), MODELS)


@pytest.fixture(autouse=True)
def siblings(monkeypatch):
    """As `python analysis/fcn_mnist/SCRIPT.py` finds them."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == SCRIPTS:
            del sys.modules[name]


@pytest.fixture
def sparing(monkeypatch):
    """Pictures draw their first and last panels only, and leave empty files."""
    from matplotlib.figure import Figure

    def save(picture, target):
        for panel in (picture.panels[0], picture.panels[-1]):
            panel.fill(Figure().subplots())
        alone = Path(target).suffix == ".png"
        made = [Path(target)] if alone else [Path(target) / f"{picture.name}.{kind}" for kind in FIGURE]
        for path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return made

    monkeypatch.setattr(Picture, "save", save)


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / f"{script}.py"), *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")


def test_every_script_is_tested():
    scripts = {path.stem for path in SCRIPTS.glob("*.py") if "publish.script(" in path.read_text()}
    assert scripts == {*FILES, "page"}


@pytest.mark.parametrize("script", FILES)
def test_a_script_writes_its_files_and_says_so(script, results, tmp_path, monkeypatch, capsys, request):
    if script != DRAWN:
        request.getfixturevalue("sparing")
    run(script, monkeypatch, results, "--output", tmp_path)
    expected = {f"{stem}.{kind}" for stem, kinds in FILES[script].items() for kind in kinds}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert {Path(line).name for line in capsys.readouterr().out.split()} == expected


@pytest.mark.parametrize(("script", "rows"), [("figure_3", 8 * 8 * 3), ("figure_13", 3 * 8 * 3)])
def test_numbers_are_those_of_correlate(script, rows, results, tmp_path, monkeypatch, sparing):
    run(script, monkeypatch, results, "--output", tmp_path)
    table = pq.read_table(tmp_path / f"{script}.parquet")
    metrics = list(dict.fromkeys(table["metric"].to_pylist()))
    whole = load(results)
    pair = whole.filter(pc.field("perturbation") != "reinit_signs")
    expected = correlate(pair, metrics=metrics)
    assert table.num_rows == rows and table.select(expected.column_names).equals(expected)
    # Without resampling the same as among all rows.
    found = correlate(whole, metrics=metrics).to_pandas().query("condition == 'reinit+rerandomize'")
    together = table.to_pandas().query("condition == 'all'")
    for name in ("rho", "tau", "rmse", "n"):
        assert list(together[name]) == pytest.approx(list(found[name]), rel=1e-12)
    assert set(STATISTICS) <= set(table.column_names)


def test_what_is_published_stands_beside_the_mean_over_layers(results, tmp_path, monkeypatch, sparing):
    run("figure_4", monkeypatch, results, "--output", tmp_path)
    rows = pq.read_table(tmp_path / "figure_4.parquet").to_pandas()
    given = rows[rows.published_rho.notna()]
    assert given[["metric", "scope", "condition", "published_rho", "published_tau"]].to_numpy().tolist() == [
        ["activation_disagreement", "mean", "all", -0.776, -0.5375]
    ]
    text = (tmp_path / "figure_4.md").read_text()
    assert "-0.776 | -0.5375" in text and "| `activation_disagreement` |" in text


def test_separation_is_that_of_the_two_groups(results):
    study = importlib.import_module("study").Study.of(str(results))
    frame = load(results).to_pandas().query("status == 'ok' and perturbation in ('reinit', 'rerandomize')")
    first = frame[frame.layer == "fc1"]
    expected = rank.separated(first.accuracy.to_numpy(), (first.perturbation == "reinit").to_numpy())
    assert study.separation("fc1") == pytest.approx(expected)
    assert study.separation(None)[0] == pytest.approx(0.75, abs=0.01)
    # A made-up disagreement that differs between the groups, and within them by chance alone.
    means = importlib.import_module("study").by_metric(study.correlations(["activation_disagreement"]), "mean")
    assert -means["activation_disagreement"]["rho"] == pytest.approx(study.mean_separation()[0], abs=0.1)


def test_table_1_has_means_over_models(results, tmp_path, monkeypatch):
    run("table_1", monkeypatch, results, "--output", tmp_path)
    table = pq.read_table(tmp_path / "table_1.parquet").to_pandas().set_index("quantity")
    frame = load(results).to_pandas().query("status == 'ok' and perturbation == 'original'")
    alpha = frame[frame.layer == "fc2"].alpha.dropna()
    row = table.loc["alpha FC2"]
    assert (row["mean"], row["sem"], row["n"]) == pytest.approx((alpha.mean(), alpha.sem(), len(alpha)))
    assert row["published_mean"] == 4.205 and row["difference"] == pytest.approx(alpha.mean() - 4.205)
    assert row["combined_sems"] == pytest.approx(row["difference"] / np.hypot(alpha.sem(), 0.039))
    whole = 100 * frame[frame.layer.isna()].accuracy
    assert table.loc["test accuracy [%]", "mean"] == pytest.approx(whole.mean())
    tails = pq.read_table(tmp_path / "table_1_fc6.parquet")
    assert pc.sum(tails["models"]).as_py() == frame[frame.layer == "fc6"].alpha.notna().sum()


def test_the_page_shows_every_figure_and_table_and_no_folder_of_the_machine(
    results, tmp_path, monkeypatch, capsys, sparing
):
    info = json.loads((results / "run.json").read_text())
    info["command"] += " data.root=/somewhere/of/mine/mnist"
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "trials").symlink_to(results / "trials")
    (copy / "run.json").write_text(json.dumps(info))
    run("page", monkeypatch, copy, "--output", tmp_path / "analysis")
    page = (tmp_path / "analysis" / "fcn_mnist.md").read_text()
    figures = {path.name for path in (tmp_path / "analysis" / "figures").iterdir()}
    stems = {f"fcn_mnist_{stem}.png" for kinds in FILES.values() for stem in kinds if "png" in kinds[stem]}
    assert figures == stems and all(f"](figures/{name})" in page for name in figures)
    tables = {path.stem for path in (tmp_path / "analysis" / "tables").iterdir()}
    assert tables == {f"fcn_mnist_{stem}" for kinds in FILES.values() for stem in kinds if "md" in kinds[stem]}
    assert "data.root=mnist" in page and "/somewhere" not in page and str(tmp_path) not in page
    assert f"{MODELS} models" in page and "\\|" not in page and "nan" not in page.lower().replace("finan", "")


@pytest.mark.parametrize("script", ["page", "table_1"])
def test_results_of_something_else_are_one_line_and_exit_code_2(script, tmp_path, monkeypatch, capsys):
    for folder, text in ((tmp_path / "nowhere", "There is no folder"), (other(tmp_path), "give results of fcn_mnist")):
        with pytest.raises(SystemExit) as ended:
            run(script, monkeypatch, folder)
        captured = capsys.readouterr()
        assert ended.value.code == 2 and captured.out == ""
        assert captured.err.startswith(f"{script}: ") and text in captured.err and captured.err.count("\n") == 1


def other(folder):
    from tests import made_up_pretrained

    return made_up_pretrained.folder(folder / "other")
