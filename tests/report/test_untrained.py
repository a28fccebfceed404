"""Reports of untrained models by alpha."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raylab.report import untrained, views

RNG = np.random.default_rng(4)
ACCURACY = {
    ("drawn", "[10, 12]"): RNG.normal(0.10, 0.01, 12),
    ("drawn", "[2, 6]"): RNG.normal(0.13, 0.01, 11),
    ("zero", "[2, 6]"): RNG.normal(0.10, 0.01, 5),
}


@pytest.fixture(scope="module")
def table():
    rows = []
    for (biases, within), accuracies in ACCURACY.items():
        for k, accuracy in enumerate(accuracies):
            about = {"model": "fcn", "replicate": k, "checkpoint": f"{biases}{within}{k}", "perturbation": "original"}
            about |= {"biases": biases, "alpha_range": within, "accuracy": accuracy, "status": "ok"}
            rows += [
                about | {"layer": None, "layer_index": None, "alpha": None, "pool_draw": None},
                about | {"layer": "fc1", "layer_index": 0, "alpha": 3.0 + k, "pool_draw": k},
            ]
    return pa.Table.from_pylist(rows)


def test_ranges_come_in_rising_order_and_with_their_own_numbers(table):
    view = views.of(table)
    assert isinstance(view, untrained.Untrained)
    assert [(each.biases, each.alpha_range) for each in view.groups] == [
        ("drawn", "[2, 6]"),
        ("drawn", "[10, 12]"),
        ("zero", "[2, 6]"),
    ]
    for row in untrained.numbers(view.groups).to_pylist():
        accuracy = 100 * ACCURACY[row["biases"], row["alpha_range"]]
        assert row["n"] == len(accuracy) and row["accuracy"] == pytest.approx(accuracy.mean())
        assert row["accuracy_sem"] == pytest.approx(stats.sem(accuracy))
        assert row["alpha_fc1"] == pytest.approx(3 + np.arange(len(accuracy)).mean())


def test_a_difference_between_ranges_is_seen_and_one_range_has_none(table):
    groups = views.of(table).groups
    p = stats.kruskal(*(values for (biases, _), values in ACCURACY.items() if biases == "drawn")).pvalue
    assert p < 0.001 and untrained.same_accuracy(groups[:2]) == pytest.approx(p)
    assert np.isnan(untrained.same_accuracy(groups[2:]))
    said = views.of(table).findings()
    assert said[0].startswith("23 untrained models with biases reach") and "p <.001" in said[0]
    assert "Kruskal" not in said[1]


def test_every_model_is_a_dot(table):
    from matplotlib.figure import Figure

    (picture,) = views.of(table).pictures()
    for panel, kind in zip(picture.panels, ("drawn", "zero"), strict=True):
        ax = Figure().subplots()
        panel.fill(ax)
        dots = [line.get_ydata() for line in ax.lines if line.get_marker() == "o"]
        wanted = [100 * values for (biases, _), values in ACCURACY.items() if biases == kind]
        assert np.sort(np.concatenate(dots)) == pytest.approx(np.sort(np.concatenate(wanted)))
