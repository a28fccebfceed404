import json
import math
import subprocess
import sys
from datetime import UTC, datetime

import made_up
import numpy as np
import pyarrow as pa
import pytest

from raylab.results import schema
from raylab.spectral import METRICS, spectrum
from raylab.types import Layer, TrialResult

TRIAL = made_up.trials(1)[2]


def test_fixed_columns_are_all_there_and_described():
    fields = schema.schema({"alpha": float, "mine": float})
    for name in ("trial_id", "layer", "layer_index", "status", "seconds", "config", "versions", "finished_at"):
        assert name in fields.names
    assert all(schema.description(field) for field in fields)
    assert fields.field("alpha").metadata[b"description"].startswith(b"exponent")
    assert fields.names.index("trial_id") < fields.names.index("alpha") < fields.names.index("status")


def test_every_column_of_the_brief_is_known():
    names = """
    accuracy loss num_samples activation_disagreement js_divergence linear_cka alpha xmin xmax D sigma num_tail
    fit_status estimator num_evals alpha_hat log_alpha_norm log_norm frobenius_norm spectral_norm log_spectral_norm
    sigma_max stable_rank entropy matrix_rank rank_loss mp_softrank mp_sigma bulk_edge num_spikes mp_status num_erg
    erg_gap num_traps device dtype small_sample threshold threshold_kind conv started_at finished_at
    """.split()  # noqa: SIM905 - sixty names in quotes are harder to read
    assert set(names) <= set(schema.KNOWN)


def test_no_column_of_an_experiment_passes_for_a_users_metric():
    from raylab.experiments import (
        alpha_fixed,
        initial_layers,
        initial_models,
        perturb_layers,
        perturb_pretrained,
        spectra,
    )

    for experiment in (alpha_fixed, initial_layers, initial_models, perturb_layers, perturb_pretrained, spectra):
        assert set(experiment.COLUMNS) <= set(schema.KNOWN)


@pytest.mark.parametrize(
    ("columns", "says"), [({"a": dict}, "use float, int, str or list"), ({"layer": int}, "fixed as string")]
)
def test_a_declaration_that_cannot_be_is_refused(columns, says):
    with pytest.raises(ValueError, match=says):
        schema.schema(columns)


def test_columns_of_a_permuted_control_are_described_by_what_they_repeat():
    field = schema.schema({"rand_stable_rank": float}).field("rand_stable_rank")
    assert schema.group(field) == "spectral" and "permuted" in schema.description(field)


def test_columns_of_the_bulk_and_its_control_say_what_is_counted():
    text = {name: column.description for name, column in schema.KNOWN.items()}
    assert "mean 1" in text["mp_sigma"] and "[weight]" not in text["mp_sigma"]
    assert "Tracy-Widom" in text["num_spikes"]
    pooled = ("rand_lambda_max", "rand_mp_softrank", "rand_mp_sigma", "rand_bulk_edge", "num_traps")
    assert all("five permutations pooled" in text[name] for name in pooled)
    assert all("the first of five" in text[name] for name in ("rand_softrank", "rand_maxdist", "rand_distance"))


def test_every_column_of_the_permuted_control_is_known():
    weights = np.random.default_rng(0).normal(size=(30, 20))
    control = METRICS.resolve("randomized")(spectrum(weights, Layer("fc", 0, "linear", (30, 20))))
    assert set(control) <= set(schema.KNOWN)


def test_metrics_are_the_columns_that_measure_a_layer():
    fields = schema.schema(
        {"accuracy": float, "alpha": float, "D": float, "linear_cka": float, "mine": int, "word": str}
    )
    assert set(schema.metric_columns(fields)) == {"alpha", "linear_cka", "mine"}


def test_groups_survive_parquet_without_knowing_the_experiment():
    assert schema.group(pa.field("theirs", pa.float64())) == "own"


def test_markdown_has_a_line_for_each_column():
    fields = schema.schema({"alpha": float})
    lines = schema.markdown(fields).splitlines()
    assert len(lines) == 2 + len(fields) and any(line.startswith("| `alpha` | double | spectral |") for line in lines)


def test_row_puts_identity_and_outcome_above_values_and_a_workers_provenance_above_the_runs():
    result = TrialResult(TRIAL, "ok", {"alpha": 2.0, "device": "cuda", "seed": 99}, seconds=1.5, host="h")
    row = schema.row(result, {"device": "cpu", "config": "c"})
    assert (row["trial_id"], row["seed"], row["seconds"]) == (TRIAL.id, 0, 1.5)
    assert (row["device"], row["config"]) == ("cuda", "c")
    assert isinstance(row["finished_at"], datetime)


def test_cells_take_numpy_scalars_nan_counts_and_times():
    fields = schema.schema({"alpha": float, "num_tail": int})
    rows = [
        {"alpha": np.float32(0.5), "num_tail": np.int32(3), "started_at": "2025-01-01T02:00:00+02:00"},
        {"alpha": 1, "num_tail": math.nan, "started_at": datetime(2025, 1, 1, tzinfo=UTC)},
        {"num_tail": 7.0},
    ]
    table = schema.table([schema.cells(row, fields) for row in rows], fields)
    assert table.schema.equals(fields, check_metadata=True)
    assert table["alpha"].to_pylist() == [0.5, 1.0, None]
    assert table["num_tail"].to_pylist() == [3, None, 7]
    assert table["started_at"].to_pylist() == [datetime(2025, 1, 1), datetime(2025, 1, 1), None]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"what": 1}, "'what' was not declared"),
        ({"alpha": "x"}, "'alpha' is double"),
        ({"num_tail": 1.5}, "'num_tail'"),
        ({"layer": 3}, "'layer'"),
    ],
)
def test_cells_refuse_what_does_not_fit(row, says):
    with pytest.raises(ValueError, match=says):
        schema.cells(row, schema.schema({"alpha": float, "num_tail": int}))


def test_importing_results_stays_light():
    code = "import sys, json, raylab.types, raylab.results; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"torch", "ray", "cupy", "duckdb", "matplotlib", "scipy"} & set(loaded)


def test_importing_the_report_loads_no_plotting():
    code = "import sys, json, raylab.report.html, raylab.report.progress; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"torch", "ray", "cupy", "duckdb", "matplotlib", "jinja2"} & set(loaded)


def test_a_column_of_lists_comes_back_as_it_went(tmp_path):
    made = schema.schema({"evals": list})
    table = schema.table([schema.cells({"evals": each}, made) for each in (np.array([1.5, 2.0]), None)], made)
    assert table["evals"].to_pylist() == [[1.5, 2.0], None]
    assert "evals" not in schema.metric_columns(made)
