"""Correlations of a results table: scopes, conditions, exclusions, intervals and p-values."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from raylab.errors import UserError
from raylab.results.correlate import SCHEMA, Resampling, correlate

FEW = Resampling(bootstrap=50, permutations=50)


def table(models=20, layers=3, conditions=("reinit", "rerandomize"), value=None, seed=0):
    """A made-up results table; `value(rng, layer, condition)` gives (metric, accuracy)."""
    rng = np.random.default_rng(seed)
    value = value or (lambda rng, layer, condition: rng.normal(size=2))
    rows = []
    for model in range(models):
        for layer in range(layers):
            for condition in conditions:
                alpha, accuracy = value(rng, layer, condition)
                rows.append(
                    {
                        "model": "m", "replicate": model, "layer": f"fc{layer}", "layer_index": layer, "draw": 0,
                        "perturbation": condition, "status": "ok", "alpha": alpha, "accuracy": accuracy,
                    }
                )  # fmt: skip
    return pa.Table.from_pylist(rows)


def cell(result, scope="pooled", condition="all", layer=None, metric="alpha"):
    found = [
        row
        for row in result.to_pylist()
        if (row["scope"], row["condition"], row["layer"], row["metric"]) == (scope, condition, layer, metric)
    ]
    assert len(found) == 1
    return found[0]


def test_every_scope_and_condition_equals_scipy_on_its_rows():
    rows = table(seed=1)
    result = correlate(rows, resampling=FEW)
    assert result.schema.equals(SCHEMA)
    frame = rows.to_pandas()
    for condition in ("all", "reinit", "rerandomize"):
        inside = frame if condition == "all" else frame[frame.perturbation == condition]
        rhos = []
        for layer, part in [*inside.groupby("layer"), (None, inside)]:
            got = cell(result, "layer" if layer else "pooled", condition, layer)
            rhos.append(stats.spearmanr(part.alpha, part.accuracy).statistic)
            line = stats.linregress(part.alpha, part.accuracy)
            assert got["n"] == len(part)
            assert got["rho"] == pytest.approx(rhos[-1])
            assert got["tau"] == pytest.approx(stats.kendalltau(part.alpha, part.accuracy).statistic)
            assert got["r2"] == pytest.approx(line.rvalue**2)
            assert got["rmse"] == pytest.approx(np.std(part.accuracy - line.slope * part.alpha))
        assert cell(result, "mean", condition)["rho"] == pytest.approx(np.mean(rhos[:-1]))


def test_grouping_alone_makes_a_strong_rho_and_shows_within():
    # Two groups that are apart in both, and independent within: rho tends to 3/4 and tau-b to 1/2.
    def apart(rng, layer, condition):
        shift = 10 * (condition == "reinit")
        return rng.normal() + shift, rng.normal() + shift

    result = correlate(table(models=400, layers=1, value=apart), resampling=FEW)
    assert cell(result)["rho"] == pytest.approx(0.75, abs=0.03)
    assert cell(result)["tau"] == pytest.approx(0.5, abs=0.03)
    for condition in ("reinit", "rerandomize"):
        assert abs(cell(result, "mean", condition)["rho"]) < 0.12


def test_the_order_of_the_rows_changes_no_number():
    rows = table(seed=2)
    rng = np.random.default_rng(2)
    rows = rows.append_column("trial_id", [[f"{at:04}" for at in rng.permutation(rows.num_rows)]])
    expected = correlate(rows, resampling=FEW).to_pandas()
    assert expected[["rho_lo", "rho_p", "tau_lo", "tau_p"]].notna().all(axis=None)
    for _ in range(3):
        found = correlate(rows.take(rng.permutation(rows.num_rows)), resampling=FEW).to_pandas()
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_perfect_monotone_relation():
    result = correlate(table(value=lambda rng, *_: (lambda v: (v, -(v**3)))(rng.normal())), resampling=FEW)
    for scope in ("pooled", "mean"):
        got = cell(result, scope)
        assert (got["rho"], got["tau"]) == pytest.approx((-1, -1))
        assert (got["rho_lo"], got["rho_hi"], got["tau_hi"]) == pytest.approx((-1, -1, -1))
        assert got["rho_p"] == pytest.approx(1 / 51)


def test_permutation_p_equals_the_exact_test_of_scipy():
    rows = table(models=7, layers=1, conditions=("reinit",), seed=5)
    x, y = rows["alpha"].to_numpy(), rows["accuracy"].to_numpy()
    got = cell(correlate(rows, resampling=Resampling(bootstrap=0, permutations=20_000)), "layer", layer="fc0")
    for name, statistic in (("rho", stats.spearmanr), ("tau", stats.kendalltau)):
        exact = stats.permutation_test(
            (x,), lambda v, of=statistic: of(v, y).statistic, permutation_type="pairings", n_resamples=6000
        )
        assert got[f"{name}_p"] == pytest.approx(exact.pvalue, abs=0.02)
        assert np.isnan(got[f"{name}_lo"])


def test_bootstrap_interval_agrees_with_scipy_where_each_model_has_one_row():
    rows = table(
        models=60,
        layers=1,
        conditions=("reinit",),
        value=lambda rng, *_: (lambda v: (v, v + rng.normal()))(rng.normal()),
    )
    got = cell(correlate(rows, resampling=Resampling(bootstrap=4000, permutations=0)))
    theirs = stats.bootstrap(
        (rows["alpha"].to_numpy(), rows["accuracy"].to_numpy()),
        lambda x, y: stats.spearmanr(x, y).statistic,
        paired=True, vectorized=False, method="percentile", n_resamples=3000, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (got["rho_lo"], got["rho_hi"]) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert (got["unit"], got["n_units"]) == ("model", 60)


def test_interval_knows_that_rows_of_one_model_belong_together():
    copies = pa.concat_tables([table(models=30, layers=1, conditions=("reinit",))] * 5)
    copies = copies.set_column(copies.column_names.index("draw"), "draw", pa.array(np.repeat(range(5), 30)))
    once = cell(correlate(table(models=30, layers=1, conditions=("reinit",))))
    five = cell(correlate(copies))
    assert five["n"] == 150 and five["n_units"] == 30
    assert five["rho_hi"] - five["rho_lo"] == pytest.approx(once["rho_hi"] - once["rho_lo"], rel=0.1)


def test_mean_over_layers_keeps_what_layers_share():
    # Six layers with the same numbers are one layer: their mean is as uncertain as one of them.
    rng = np.random.default_rng(3)
    one = table(models=30, layers=1, conditions=("reinit",), value=lambda *_: rng.normal(size=2))
    frame = one.to_pandas()
    six = pa.Table.from_pandas(
        pd.concat([frame.assign(layer=f"fc{at}", layer_index=at) for at in range(6)]), preserve_index=False
    )
    single, mean = cell(correlate(one), "layer", layer="fc0"), cell(correlate(six), "mean")
    for name in ("rho", "rho_lo", "rho_hi", "rho_p", "tau", "tau_lo", "tau_hi", "tau_p"):
        assert mean[name] == pytest.approx(single[name], abs=1e-6)


def test_failed_rows_and_missing_values_are_left_out_and_counted():
    rows = table(models=10, layers=1, seed=2).to_pylist()
    rows[0] |= {"status": "failed", "alpha": 1e9}
    rows[1]["alpha"] = float("nan")
    rows[2]["alpha"] = None
    rows[3]["accuracy"] = float("inf")
    got = cell(correlate(pa.Table.from_pylist(rows), resampling=FEW))
    kept = rows[4:]
    assert (got["n"], got["n_excluded"], got["status"]) == (16, 4, "ok")
    expected = stats.spearmanr([row["alpha"] for row in kept], [row["accuracy"] for row in kept]).statistic
    assert got["rho"] == pytest.approx(expected)


def test_what_cannot_be_computed_has_a_status_and_nan():
    few = cell(correlate(table(models=3, layers=1, conditions=("reinit",)), resampling=FEW))
    assert few["status"] == "too_few" and np.isnan(few["rho"]) and np.isnan(few["rmse"])
    flat = correlate(table(value=lambda rng, *_: (2.0, rng.normal())), resampling=FEW)
    assert cell(flat)["status"] == cell(flat, "mean")["status"] == "constant_metric"
    still = correlate(table(value=lambda rng, *_: (rng.normal(), 0.1)), resampling=FEW)
    assert cell(still)["status"] == "constant_target"
    part = table(value=lambda rng, layer, _: (rng.normal() if layer else 1.0, rng.normal()))
    got = cell(correlate(part, resampling=FEW), "mean")
    assert got["status"] == "partial" and np.isfinite(got["rho"])
    assert got["n"] == 80  # of 120: the rows of a layer without a rho are no part of the mean


def test_one_model_is_resampled_by_layer():
    rows = table(models=1, layers=8, conditions=("rerandomize",)).to_pylist()
    rng = np.random.default_rng(0)
    rows = [row | {"draw": draw, "alpha": rng.normal(), "accuracy": rng.normal()} for row in rows for draw in range(10)]
    result = correlate(pa.Table.from_pylist(rows), resampling=FEW)
    assert (cell(result)["unit"], cell(result)["n_units"]) == ("layer", 8)
    assert (cell(result, "layer", layer="fc3")["unit"], cell(result, "layer", layer="fc3")["n_units"]) == ("row", 10)


def test_same_seed_same_numbers_whatever_the_order_of_rows():
    rows = table(seed=4)
    shuffled = rows.take(np.random.default_rng(0).permutation(rows.num_rows))
    first, again = (correlate(each, resampling=FEW).to_pandas() for each in (rows, rows))
    pd.testing.assert_frame_equal(first, again)
    other = correlate(shuffled, resampling=FEW).to_pandas()
    close = ["rho", "rho_lo", "tau", "tau_hi", "rmse", "r2"]
    pd.testing.assert_frame_equal(first[close], other[close], atol=1e-5)


def test_unknown_target_says_what_there_is():
    with pytest.raises(UserError, match=r"No column 'accuracies' to correlate\. Available: alpha"):
        correlate(table(), target="accuracies")


def test_baseline_and_original_rows_do_not_take_part():
    rows = table(models=10, layers=1, conditions=("original", "reinit")).to_pylist()
    rows.append(rows[0] | {"layer": None, "layer_index": None, "perturbation": "original"})
    assert cell(correlate(pa.Table.from_pylist(rows), resampling=FEW))["n"] == 10


def shared():
    folder = Path(os.environ.get("RAYLAB_SHARED") or Path(__file__).parents[2] / ".." / "shared")
    if not (folder / "reference" / "trends").is_dir():
        pytest.skip("no shared data: set RAYLAB_SHARED")
    return folder / "reference" / "trends"


@pytest.mark.parametrize("series", ["VGG", "ResNet-1K", "DenseNet"])
def test_published_table_1_is_recomputed(series):
    """Martin, Peng & Mahoney 2021, Table 1: accuracy of the models of a series against their mean metrics."""
    published = pd.read_csv(shared() / "published_tables.csv").query("table == 'Table 1' and row == @series and match")
    models = pd.read_csv(shared() / "per_model.csv").query("series == @series and in_table1")
    metrics = ["log_norm", "log_spectral_norm", "alpha_weighted", "log_alpha_norm"]
    rows = models[[*metrics, "model"]].assign(
        accuracy=100 - models.top1_error_published_table,
        layer="mean",
        layer_index=0,
        perturbation="original",
        status="ok",
    )
    found = pa.Table.from_pandas(rows, preserve_index=False)
    result = correlate(found, metrics=metrics, conditions={"published": ["original"]}, resampling=FEW)
    assert len(published) == 12
    for row in published.itertuples():
        got = cell(result, condition="published", metric=row.metric)
        value = {"RMSE": got["rmse"], "R2": got["r2"], "tau": got["tau"]}[row.statistic]
        assert value == pytest.approx(row.recomputed, rel=1e-6)
        assert abs(value - row.published) <= 0.5 * 10**-row.printed_decimals + 1e-9


def test_pooled_draws_of_one_model_do_not_count_as_layers():
    """Eight layers without any relation but each with many alike draws: p is uniform, not always near 0."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y = rng.random(8), rng.random(8)
        rows = [
            {
                "layer": f"l{at}", "layer_index": at, "perturbation": "rerandomize", "status": "ok", "draw": draw,
                "trial_id": f"{rng.integers(1 << 30):010}", "accuracy": y[at] + 1e-3 * rng.random(),
                "alpha": x[at] + 1e-3 * rng.random(),
            }
            for at in range(8) for draw in range(10)
        ]  # fmt: skip
        table = correlate(
            pa.Table.from_pylist(rows), metrics=["alpha"], resampling=Resampling(bootstrap=0, permutations=200)
        )
        found += [row["rho_p"] for row in table.to_pylist() if row["scope"] == "pooled"]
    assert np.mean(np.array(found) < 0.05) < 0.2 and 0.3 < np.mean(found) < 0.7
