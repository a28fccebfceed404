"""Verdicts on made-up metrics whose answers are known, and on others against scikit-learn and pandas."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from raylab.errors import UserError
from raylab.results import standing
from raylab.results.cases import Criterion
from raylab.results.correlate import Resampling
from raylab.results.verdict import SCHEMA, verdict

FEW = Resampling(bootstrap=200, permutations=20)
LEFT = {"reinit": (0.65, 0.93, 0.95), "rerandomize": (0.1, 0.1, 0.1)}  # by layer; whole: 0.97


def table(models=12, seed=0, conditions=("reinit", "rerandomize"), draws=1):
    """Three layers, the first of them critical whatever is done to it; metrics that know all, nothing, or layers."""
    rng, rows = np.random.default_rng(seed), []
    for model in range(models):
        whole = 0.97 + 0.002 * rng.normal()
        head = {"model": "m", "replicate": model, "status": "ok", "data": "d", "draw": 0}
        rows.append(head | {"layer": None, "perturbation": "original", "accuracy": whole})
        for at in range(3):
            for condition in ("original", *conditions):
                for draw in range(1 if condition == "original" else draws):
                    left = whole if condition == "original" else LEFT[condition][at] + 0.01 * rng.normal()
                    moved = 0.0 if condition == "original" else 1.0 + at
                    row = {"layer": f"fc{at}", "layer_index": at, "perturbation": condition, "accuracy": left}
                    row |= {"draw": draw, "knows": left, "noise": rng.normal(), "constant": 7.0}
                    row |= {"still": 5 + (left > 0.5) + 0.5 * rng.normal(), "alpha": 4 + 3 * moved + 0.1 * rng.normal()}
                    row["linear_cka"] = None if condition == "original" else left - 0.05 * rng.random()
                    row["layers"] = moved + 0.1 * rng.normal()  # tells layers apart, not what was done to them
                    rows.append(head | row)
    made = pa.Table.from_pylist(rows[1:2] + rows[:1] + rows[2:])  # the first row's keys are the columns
    return made.append_column("trial_id", pa.array([f"{at:04d}" for at in range(len(rows))]))


@pytest.fixture(scope="module")
def rows():
    return table()


@pytest.fixture(scope="module")
def found(rows):
    return verdict(rows, resampling=FEW)


def cells(result, metric, question, scope, label="cost at most 0.1"):
    return next(
        row
        for row in result.to_pylist()
        if (row["metric"], row["question"], row["scope"]) == (metric, question, scope) and row["label"] in (label, "")
    )


def by_name(result):
    return {one.metric: one for one in standing.standings(result)}


def test_a_perfect_metric_is_first_and_a_constant_one_a_status(found):
    assert found.schema.equals(SCHEMA)
    stand = standing.standings(found)
    assert stand[0].metric == "knows" and stand[0].passes() == "b c"
    for number in (stand[0].area, stand[0].within, stand[0].groups):
        assert (number.estimate, number.lo, number.hi, number.status in ("ok", "partial")) == (1, 1, 1, True)
    constant = by_name(found)["constant"]
    assert (constant.shift.status, constant.area.status) == ("no_spread", "no_spread")
    assert (constant.within.status, constant.groups.status) == ("constant_metric", "constant_metric")
    numbers = (constant.shift, constant.area, constant.within, constant.groups)
    assert np.isnan([each.estimate for each in numbers]).all() and constant.passes() == ""
    assert stand[-1].metric == "constant"


def test_noise_has_intervals_that_cover_guessing():
    covered = []
    for seed in range(6):
        one = by_name(verdict(table(seed=seed), resampling=FEW))["noise"]
        covered += [each.lo <= 0.5 <= each.hi for each in (one.area, one.within, one.groups)]
        assert one.passes() in ("none", "a")  # noise stays where it is when a layer is re-initialised
    assert np.mean(covered) > 0.8


def test_telling_layers_apart_is_no_pass(found):
    one = by_name(found)["layers"]
    assert one.area.lo > 0.6 and one.within.lo < 0.5 < one.within.hi
    assert one.test_b() is False


def test_areas_equal_sklearn(rows, found):
    frame = rows.to_pandas()
    whole = frame[frame.layer.isna()].set_index("replicate").accuracy
    frame = frame[frame.layer.notna()]
    trained = frame[frame.perturbation == "original"].groupby("layer").alpha.agg(["mean", "std"])
    frame = frame[frame.perturbation != "original"].join(trained, on="layer")
    cost = whole.loc[frame.replicate].to_numpy() - frame.accuracy
    for threshold in (0.02, 0.05, 0.1):
        label = f"cost at most {threshold:g}"
        raw = cells(found, "alpha", "robust_critical", "raw", label)
        assert raw["estimate"] == pytest.approx(roc_auc_score(cost <= threshold, -frame.alpha))  # low alpha is good
        assert (raw["n"], raw["n_robust"]) == (72, int((cost <= threshold).sum()))
        score = -(frame.alpha - frame["mean"]) / frame["std"]
        got = cells(found, "alpha", "robust_critical", "standardised", label)["estimate"]
        assert got == pytest.approx(roc_auc_score(cost <= threshold, score))
    half = cells(found, "alpha", "robust_critical", "raw", "half")
    assert half["estimate"] == pytest.approx(roc_auc_score(frame.perturbation == "reinit", -frame.alpha))
    groups = [roc_auc_score(part.perturbation == "reinit", -part.alpha) for _, part in frame.groupby("layer")]
    got = cells(found, "alpha", "reinit_rerandomize", "within")
    assert (got["estimate"], got["unit"], got["n_units"]) == (pytest.approx(np.mean(groups)), "model", 12)
    assert got["lo"] < got["estimate"] < got["hi"]


def test_shift_is_in_standard_deviations_over_trained_models(rows, found):
    frame = rows.to_pandas()
    shifts = []
    for layer in ("fc1", "fc2"):  # fc0 is not robust
        part = frame[frame.layer == layer].groupby("perturbation").alpha
        shifts.append((part.mean()["reinit"] - part.mean()["original"]) / part.std()["original"])
    got = cells(found, "alpha", "invariance", "reinit_signed")
    assert (got["estimate"], got["n"], got["n_layers"]) == (pytest.approx(np.mean(shifts)), 24, 2)
    assert got["lo"] < got["estimate"] < got["hi"]
    assert by_name(found)["alpha"].test_a() is False and by_name(found)["noise"].shift.estimate < 1


def test_a_similarity_is_compared_as_it_is(found):
    cka = by_name(found)["linear_cka"]
    assert (cka.kind, cka.better, cka.shift.status) == ("data-based", "higher", "no_values")
    assert cka.area.estimate == cells(found, "linear_cka", "robust_critical", "raw")["estimate"] > 0.9


def test_the_order_of_rows_changes_nothing(rows, found):
    shuffled = rows.take(pa.array(np.random.default_rng(1).permutation(rows.num_rows)))
    assert verdict(shuffled, resampling=FEW).to_pandas().equals(found.to_pandas())


def test_rows_that_failed_and_values_that_are_not_finite_are_left_out(rows):
    frame = rows.to_pandas()
    perturbed = frame.index[frame.perturbation == "rerandomize"]
    frame.loc[perturbed[0], ["status", "knows"]] = ["failed", 99.0]
    frame.loc[perturbed[1], "knows"] = np.inf
    got = cells(verdict(pa.Table.from_pandas(frame), resampling=FEW), "knows", "robust_critical", "raw")
    assert (got["n"], got["estimate"]) == (70, 1)


def test_one_model_resamples_layers_and_says_what_it_cannot_know():
    found = verdict(table(models=1, conditions=("rerandomize",), draws=4), resampling=FEW)
    one = by_name(found)["knows"]
    assert (one.shift.status, one.groups.status, one.area.status) == ("no_reinit", "no_reinit", "one_class")
    found = verdict(table(models=1, draws=4), resampling=FEW)
    one = by_name(found)["knows"]
    assert (one.shift.status, one.area.estimate, one.area.unit) == ("one_model", 1, "layer")
    assert not one.area.sure  # three layers are too few
    assert cells(found, "knows", "robust_critical", "standardised")["status"] == "one_model"


def test_a_loss_is_better_when_it_is_less():
    rows = table()
    loss = pa.array(-np.log(rows["accuracy"].to_numpy()))
    rows = rows.append_column("loss", loss)
    criterion = Criterion(target="loss", better=-1, thresholds=(0.05, 0.1), main=0.1)
    one = by_name(verdict(rows, criterion, resampling=FEW))["knows"]
    assert one.area.estimate == one.within.estimate == 1


def test_a_target_that_is_no_column_is_one_line(rows):
    with pytest.raises(UserError, match="No column 'loss'"):
        verdict(rows, Criterion(target="loss"))
