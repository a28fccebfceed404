"""Reports of a search: made-up samples, one stopped early, one failed."""

import numpy as np
import pyarrow as pa
import pytest

from raylab.report import search, views
from raylab.results import searched

SCORES = {0.01: [0.1, 0.5, 0.8], 0.1: [0.1, 0.3], 0.001: [0.1, 0.4, 0.9]}


@pytest.fixture(scope="module")
def table():
    about = {"model": "fcn", "replicate": 0, "perturbation": "original", "seed": 0}
    rows = [
        about
        | {"checkpoint": f"{rate}-{epoch}", "learning_rate": rate, "epoch": epoch, "status": "ok"}
        | {"layer": layer, "accuracy": score}
        for rate, scores in SCORES.items()
        for epoch, score in enumerate(scores)
        for layer in (None, "fc1")
    ]
    rows.append(rows[0] | {"learning_rate": 9.0, "status": "failed", "accuracy": None})
    order = np.random.default_rng(0).permutation(len(rows))
    found = pa.Table.from_pylist([rows[k] for k in order])
    field = searched.field("learning_rate", "train.learning_rate", "interval(1e-3,1e-1)", float)
    at = found.schema.get_field_index("learning_rate")
    return found.set_column(at, field, found["learning_rate"])


def test_samples_come_best_first_epoch_by_epoch(table):
    view = views.of(table)
    assert isinstance(view, search.Search)
    assert [(each.values["learning_rate"], each.scores.tolist()) for each in view.samples] == [
        (rate, SCORES[rate]) for rate in (0.001, 0.01, 0.1)
    ]
    assert view.findings() == [
        "Of 3 samples, the best reaches an accuracy of 90.00 %: learning_rate 0.001.",
        "1 sample with fewer epochs than the 2 of others.",
    ]
    assert [row[1:] for row in view.tables()[0].rows] == [["90.00", "2"], ["80.00", "2"], ["30.00", "1"]]
    assert view.files()["samples.csv"][1].num_rows == 8


def test_every_sample_is_drawn(table):
    from matplotlib.figure import Figure

    (picture,) = views.of(table).pictures()
    axes = [Figure().subplots() for _ in picture.panels]
    for ax, panel in zip(axes, picture.panels, strict=True):
        panel.fill(ax)
    assert sorted(len(line.get_xdata()) for line in axes[0].lines) == [2, 3, 3]
    assert axes[1].get_xscale() == "log" and sorted(axes[1].lines[0].get_xdata()) == sorted(SCORES)
    assert axes[1].lines[1].get_xdata().tolist() == [0.001]


def test_samples_of_several_seeds_are_kept_apart(table):
    other = table.set_column(table.schema.get_field_index("seed"), "seed", pa.array([1] * table.num_rows))
    view = views.of(pa.concat_tables([table, other]))
    assert view.keys == ["learning_rate", "seed"] and len(view.samples) == 6
