"""Reports of training with alpha fixed: made-up courses with a known drift."""

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from scipy import stats

from raylab.report import courses, epochs, views
from raylab.report.picture import by_error
from raylab.results import frame, searched

EPOCHS, MODELS = 4, 3
RNG = np.random.default_rng(6)
ACCURACY = {
    (how, within): RNG.uniform(0.5, 0.9, (EPOCHS, MODELS)).cumsum(0) / 4
    for how in ("newton_schulz", "free")
    for within in ("[10, 12]", "[2, 6]")
}


def moved(how: str, epoch: int, model: int) -> float:
    return 0.25 * epoch + 0.01 * model * epoch if how == "free" else 0.0


@pytest.fixture(scope="module")
def table():
    rows = []
    for (how, within), accuracy in ACCURACY.items():
        for epoch in range(EPOCHS):
            for model in range(MODELS):
                about = {
                    "model": "fcn",
                    "replicate": model,
                    "checkpoint": f"{how}{within}{epoch}{model}",
                    "status": "ok",
                }
                about |= {"retraction": how, "alpha_range": within, "epoch": epoch, "perturbation": "original"}
                about |= {"layer": None, "layer_index": None, "accuracy": accuracy[epoch, model], "train_loss": 1.0}
                rows.append(about | {"alpha": None, "alpha_float32": None})
                alpha = 3 + model + moved(how, epoch, model)
                flipped = alpha + (5 if how == "newton_schulz" and (epoch, model) == (2, 1) else 0)
                rows.append(about | {"layer": "fc1", "layer_index": 0, "alpha": alpha, "alpha_float32": flipped})
    order = RNG.permutation(len(rows))
    return pa.Table.from_pylist([rows[k] for k in order])


def test_courses_are_the_rows_in_order(table):
    found = courses.courses(table)
    assert isinstance(views.of(table), epochs.Epochs)
    assert [(each.retraction, each.alpha_range) for each in found] == [
        (how, within) for how in ("newton_schulz", "free") for within in ("[2, 6]", "[10, 12]")
    ]
    for each in found:
        np.testing.assert_allclose(each.accuracy, 100 * ACCURACY[each.retraction, each.alpha_range])


def test_epochs_are_not_counted_as_models(table):
    assert frame.count_models(table) == len(ACCURACY) * MODELS
    assert frame.count_models(table.drop_columns("epoch")) == len(ACCURACY) * MODELS * EPOCHS


def test_what_moves_and_what_only_would_have(table):
    fixed, _, free, _ = courses.courses(table)
    assert fixed.drift == 0 and fixed.drift_float32 == 5
    assert free.drift == pytest.approx(moved("free", EPOCHS - 1, MODELS - 1)) == free.drift_float32


def test_means_are_over_models_and_a_goal_is_where_the_mean_crosses_it(table):
    each = courses.courses(table)[0]
    mean, sem = courses.mean_of(each.accuracy)
    np.testing.assert_allclose(mean, each.accuracy.mean(axis=1))
    np.testing.assert_allclose(sem, stats.sem(each.accuracy, axis=1))
    goal = float(mean[2])
    assert each.reached(goal) == int(np.flatnonzero(mean >= goal)[0]) and each.reached(1000) is None
    row = courses.numbers([each]).to_pylist()[2]
    assert (row["epoch"], row["n"], row["accuracy"]) == (2, MODELS, pytest.approx(goal))


def test_an_unfinished_run_is_summed_up_where_all_models_are(table):
    left = table.to_pandas().query("not (replicate == 1 and epoch > 1)")
    each = courses.courses(pa.Table.from_pandas(left))[0]
    assert each.last == 1 and np.isnan(each.accuracy[2:, 1]).all()
    mean, sem = courses.mean_of(each.accuracy)
    assert mean[3] == pytest.approx(np.nanmean(each.accuracy[3])) and np.isfinite(sem[3])


def test_samples_of_a_search_and_models_of_other_seeds_are_not_each_other(table):
    """A search over the learning rate, and two seeds: both have the same replicates, ranges and retractions."""
    rows, some = [], [row for row in table.to_pylist() if row["retraction"] == "free"]
    for at, (rate, seed) in enumerate([(0.1, 0), (0.1, 1), (0.2, 0)]):
        rows += [row | {"seed": seed, "learning_rate": rate, "accuracy": row["accuracy"] / (1 + at)} for row in some]
    plain = pa.Table.from_pylist(rows)
    kinds = {"learning_rate": searched.field("learning_rate", "train.learning_rate", "choice(0.1,0.2)", float)}
    found = courses.courses(plain.cast(pa.schema([kinds.get(field.name, field) for field in plain.schema])))
    assert [(each.alpha_range, each.sample) for each in found] == [
        (within, f"learning_rate={rate}") for within in ("[2, 6]", "[10, 12]") for rate in (0.1, 0.2)
    ]
    accuracy = 100 * ACCURACY["free", "[2, 6]"]
    np.testing.assert_allclose(found[0].accuracy, np.hstack([accuracy, accuracy / 2]))
    np.testing.assert_allclose(found[1].accuracy, accuracy / 3)
    assert found[0].drift == pytest.approx(moved("free", EPOCHS - 1, MODELS - 1))
    assert [row["sample"] for row in courses.numbers(found[:1]).to_pylist()] == ["learning_rate=0.1"] * EPOCHS


def test_tables_findings_and_figures(table):
    view = views.of(table)
    assert [row[0] for row in view.summary()[0].rows][::2] == ["newton_schulz, [2, 6]", "free, [2, 6]"]
    assert len(view.findings()) == 4 and "trained free" in view.findings()[2]
    assert {picture.name for picture in view.pictures()} == {"accuracy_by_epoch", "alpha_by_epoch"}
    ax = Figure().subplots()
    view.pictures()[0].panels[0].fill(ax)
    drawn = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == EPOCHS]
    np.testing.assert_allclose(
        drawn, [100 * ACCURACY["newton_schulz", name].mean(1) for name in ("[2, 6]", "[10, 12]")]
    )
    at = lambda accuracy: ax.transData.transform((0, accuracy))[1]  # noqa: E731
    assert at(99) - at(90) == pytest.approx(at(90) - at(0)), "half of the axis is for what lies beyond 90 %"


@pytest.mark.parametrize("highest", [95.0, 98.9, 99.5, 99.89, 99.95, 100.0])
def test_the_best_accuracy_lies_within_an_axis_by_the_error(highest):
    ax = Figure().add_subplot()
    by_error(ax, 50.0, highest)
    low, best, top = (ax.transData.transform((0, accuracy))[1] for accuracy in (50.0, highest, ax.get_ylim()[1]))
    assert low < best < top + 1e-6
