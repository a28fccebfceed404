import io
import re

import made_up
import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from raylab.report import tables
from raylab.results import load
from raylab.results.correlate import Resampling, correlate
from raylab.results.text import TextTable, number, p_value

FEW = Resampling(bootstrap=100, permutations=100)


@pytest.fixture(scope="module")
def table(finished):
    return load(finished)


@pytest.fixture(scope="module")
def correlations(table):
    return correlate(table, resampling=FEW)


def printed(shown, width):
    out = io.StringIO()
    Console(file=out, width=width).print(shown)
    return out.getvalue()


def test_plan_counts_what_there_is_to_do():
    trials = made_up.trials(3)
    plan = tables.Plan(
        trials=trials, done={trial.id for trial in trials[:30]}, failed={trials[40].id},
        skipped={"fc7": "7 eigenvalues, at least 8 are needed"}, work={"estimate": "40 s"},
    )  # fmt: skip
    shown = tables.plan_table(plan)
    assert shown.title == "Plan: 75 trials"
    conditions = ["unperturbed", "re-initialised", "re-randomised", "re-init. signs"]
    assert list(shown.header) == ["layer", *conditions, "done", "to run"]
    assert list(shown.rows[0]) == ["baseline", "3", "", "", "", "2", "1"]
    assert list(shown.rows[1]) == ["fc1", "3", "3", "3", "3", "8", "4"]
    assert list(shown.rows[-1]) == ["all", "21", "18", "18", "18", "30", "45"]
    for words in ("1 failed in an earlier run", "Layer fc7 is skipped: 7 eigenvalues", "estimate: 40 s"):
        assert words in shown.note
    assert max(map(len, printed(shown, 80).splitlines())) <= 80


def test_layer_table_is_the_mean_and_standard_error_over_models(table):
    shown = tables.layer_table(table, "accuracy")
    frame = table.to_pandas().query("status == 'ok' and layer == 'fc2' and perturbation == 'reinit'").accuracy * 100
    row = dict(zip(shown.header, shown.rows[1], strict=True))
    assert row["layer"] == "fc2"
    assert row["re-initialised"] == f"{frame.mean():.2f} ± {frame.std() / np.sqrt(len(frame)):.2f}"
    assert tables.layer_table(table, "nothing_of_the_kind") is None


def test_draws_of_one_model_are_one_model():
    rows = [
        {"layer": "a", "layer_index": 0, "perturbation": "reinit", "status": "ok", "replicate": model, "alpha": value}
        for model, values in enumerate(((1.0, 3.0), (4.0, 4.0)))
        for value in values
    ]
    assert list(tables.layer_table(pa.Table.from_pylist(rows), "alpha").rows[0]) == ["a", "3.000 ± 1.000"]


def test_an_original_layer_without_accuracy_has_that_of_its_model():
    rows = [
        {
            "layer": layer,
            "layer_index": 0,
            "perturbation": "original",
            "status": "ok",
            "replicate": 0,
            "accuracy": value,
        }
        for layer, value in ((None, 0.9), ("a", None))
    ]
    assert list(tables.layer_table(pa.Table.from_pylist(rows), "accuracy").rows[0]) == ["a", "90.00"]


def test_metric_table_holds_the_correlations(correlations):
    shown = tables.metric_table(correlations, metrics=["alpha", "rank_loss"])
    assert len(shown.rows) == 1
    (found,) = [
        row for row in correlations.to_pylist()
        if (row["metric"], row["scope"], row["condition"]) == ("alpha", "mean", "all")
    ]  # fmt: skip
    row = shown.rows[0]
    assert row[:3] == ["alpha", str(found["n"]), number(found["rho"])]
    assert row[3] == f"[{number(found['rho_lo'], 2)}, {number(found['rho_hi'], 2)}]"
    assert row[4] == p_value(found["rho_p"]) and row[8] == number(found["rmse"])
    assert "constant metric: rank_loss" in shown.note and "left out" in shown.note
    assert tables.metric_table(correlations, condition="permute") is None


def test_each_block_of_the_correlations_says_what_its_intervals_are_of(correlations):
    shown = tables.metric_table(correlations)
    first, second = (line.split("  ") for line in printed(shown, 80).splitlines() if line.startswith("metric "))
    assert {"rho", "rho p"} <= {name.strip() for name in first}
    assert {"tau 95 % CI", "tau p"} <= {name.strip() for name in second}


def test_metrics_that_have_a_rho_in_some_layers_only_are_named():
    rng = np.random.default_rng(0)
    rows = [
        {
            "layer": layer, "layer_index": at, "perturbation": "reinit", "status": "ok", "draw": draw,
            "accuracy": rng.random(), "alpha": rng.random(), "entropy": rng.random() * at,
        }
        for at, layer in enumerate("abc") for draw in range(6)
    ]  # fmt: skip
    shown = tables.metric_table(
        correlate(pa.Table.from_pylist(rows), resampling=Resampling(bootstrap=20, permutations=20))
    )
    assert [row[:2] for row in shown.rows] == [["alpha", "18"], ["entropy", "12"]]
    assert "Over some layers only: entropy." in shown.note


def test_a_single_draw_has_no_standard_error_and_the_note_says_why():
    row = {"layer": "a", "layer_index": 0, "perturbation": "reinit", "status": "ok", "replicate": 0, "alpha": 2.0}
    assert tables.layer_table(pa.Table.from_pylist([row]), "alpha").note == "One model and one draw: no standard error."


def test_grouping_table_has_a_column_for_each_condition(correlations):
    shown = tables.grouping_table(correlations)
    assert list(shown.header) == [
        "metric",
        "together",
        "pooled",
        "re-init. + re-rand.",
        "re-init.",
        "re-rand.",
        "signs",
    ]
    assert shown.rows[0][0] == "alpha" and "rank_loss" not in [row[0] for row in shown.rows]


@pytest.mark.parametrize("width", [40, 50, 80, 200])
def test_no_number_is_broken_however_narrow_the_terminal(correlations, width):
    shown = tables.metric_table(correlations)
    text = printed(shown, width)
    assert "…" not in text.split("[ ]")[0]
    assert max(map(len, text.splitlines())) <= width
    words = re.split(r"\s{2,}|\n", text)
    for row in shown.rows:
        assert row[2] in words and row[8] in words


def test_markdown_is_a_table():
    shown = TextTable("T", ["a", "b"], [["x|y", "1"]], note="n")
    assert shown.markdown() == "**T**\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n\nn\n"
    assert "x|y" in printed(shown, 40) and printed(TextTable("", [], []), 40).strip() == ""


def test_text_with_brackets_is_no_markup():
    assert "[red]" in printed(TextTable("[b]", ["a"], [["[red]x"]]), 40)


def test_numbers_to_read():
    assert [number(value) for value in (0.12345, -0.0001, float("nan"), None)] == ["0.123", "0.000", "–", "–"]
    assert [p_value(value) for value in (0.0004, 0.04, None)] == ["<.001", "0.040", "–"]
