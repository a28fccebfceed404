"""Differences beside those that pandas makes."""

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from raylab.errors import UserError
from raylab.results import load, parts
from raylab.results.differences import differences, names
from raylab.results.query import query


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return made_up.folder(tmp_path_factory.mktemp("results"), models=3)


@pytest.fixture(scope="module")
def rows(results):
    return load(results)


def merged(rows):
    """Each perturbed row beside its layer's original and its model's baseline, as pandas joins them."""
    frame = rows.to_pandas().query("status == 'ok'")
    perturbed = frame[frame.layer.notna() & (frame.perturbation != "original")]
    originals = frame[frame.layer.notna() & (frame.perturbation == "original")]
    joined = perturbed.merge(originals, "left", on=["checkpoint", "layer"], suffixes=("", "_before"))
    return joined.merge(frame[frame.layer.isna()], "left", on="checkpoint", suffixes=("", "_whole")).set_index(
        "trial_id"
    )


def test_every_number_is_less_that_of_the_original_layer_or_of_the_whole_model(rows):
    made, beside = differences(rows).to_pandas().set_index("trial_id"), merged(rows)
    assert set(made.index) == set(beside.index) and len(made) == 3 * 6 * 3 - 2  # two rows have failed
    for name in ("alpha", "entropy", "num_tail", "xmin", "D", "erg_gap"):
        before = beside[name] - beside[f"{name}_before"]
        assert made[f"d_{name}"].to_dict() == pytest.approx(before.to_dict(), nan_ok=True), name
    for name in ("accuracy", "loss"):
        cost = beside[name] - beside[f"{name}_whole"]
        assert made[f"d_{name}"].to_dict() == pytest.approx(cost.to_dict()), name


def test_columns_say_what_they_are(rows):
    made = differences(rows)
    assert (
        "alpha less that of the layer as it was trained"
        in made.schema.field("d_alpha").metadata[b"description"].decode()
    )
    assert "d_alpha" in names(rows.schema) and set(names(rows.schema)) <= set(made.column_names)
    assert not {"d_layer_index", "d_seconds", "d_linear_cka", "d_threshold"} & set(made.column_names)


def test_the_order_of_rows_does_not_matter(rows):
    mixed = rows.take(pa.array(np.random.default_rng(0).permutation(len(rows))))
    one, other = (differences(each).sort_by("trial_id").to_pandas() for each in (rows, mixed))
    pd.testing.assert_frame_equal(one, other)


def test_without_an_original_or_a_baseline_there_is_no_difference(rows):
    frame = rows.to_pandas()
    lacking = frame[
        ~((frame.layer == "fc2") & (frame.perturbation == "original")) & ~(frame.layer.isna() & (frame.replicate == 1))
    ]
    made = differences(pa.Table.from_pandas(lacking, rows.schema, preserve_index=False)).to_pandas()
    assert made[made.layer == "fc2"].d_alpha.isna().all() and made[made.layer == "fc3"].d_entropy.notna().all()
    assert made[made.replicate == 1].d_accuracy.isna().all() and made[made.replicate == 0].d_accuracy.notna().all()


def test_a_metric_of_a_users_own_and_infinite_values():
    row = {"experiment": "e", "model": "m", "replicate": 0, "checkpoint": "c", "status": "ok", "layer": "a"}
    table = pa.Table.from_pylist(
        [
            row
            | {"layer": None, "perturbation": "original", "loss": 3.0, "perplexity": 20.0, "mine": None, "alpha": None},
            row | {"perturbation": "original", "mine": 2, "alpha": 3.0},
            row | {"perturbation": "rerandomize", "mine": 5, "alpha": np.inf, "loss": 9.0, "perplexity": np.inf},
        ]
    )
    (made,) = differences(table).to_pylist()
    assert made["d_mine"] == 3 and made["d_loss"] == 6
    assert np.isnan(made["d_alpha"]) and np.isnan(made["d_perplexity"])


def test_results_without_perturbed_rows_have_none():
    assert differences(pa.table({"layer": ["a"], "perturbation": ["original"], "status": ["ok"]})).num_rows == 0
    assert (
        differences(pa.table({"layer": pa.array([], pa.string()), "status": pa.array([], pa.string())})).num_rows == 0
    )


def test_sql_sees_them_beside_the_rows(results, rows):
    sql = "SELECT t.trial_id, d.d_alpha, t.alpha FROM Differences d JOIN trials t USING (trial_id) ORDER BY ALL"
    got, made = query(results, sql).to_pandas(), differences(rows).to_pandas()
    assert got.set_index("trial_id").d_alpha.to_dict() == pytest.approx(
        made.set_index("trial_id").d_alpha.to_dict(), nan_ok=True
    )
    with pytest.raises(UserError, match="The query failed"):
        query(results, "SELECT * FROM differences, read_text('/etc/hostname')")


def test_a_damaged_part_is_named(tmp_path):
    made_up.folder(tmp_path, models=1)
    part = tmp_path / "trials" / parts.names(tmp_path)[0]
    data = part.read_bytes()
    part.write_bytes(data[:60] + b"?" * 200 + data[260:])
    with pytest.raises(UserError, match=rf"{part.name} is damaged"):
        query(tmp_path, "SELECT * FROM differences")
