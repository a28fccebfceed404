"""Areas under ROC curves against scikit-learn's and scipy's, ties and weights and all."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from raylab.results import roc


@pytest.fixture(params=["continuous", "ties"])
def cases(request):
    rng = np.random.default_rng(3)
    score = rng.normal(size=90) if request.param == "continuous" else rng.integers(0, 4, 90).astype(float)
    positive = rng.random(90) < 0.4
    return score + 0.5 * positive * (request.param == "continuous"), positive, rng.integers(0, 7, 90)


def test_area_equals_sklearn_and_mann_whitney(cases):
    score, positive, unit = cases
    found = roc.area([roc.pairs(score, positive, unit, 7)])
    assert found == pytest.approx(roc_auc_score(positive, score))
    u = stats.mannwhitneyu(score[positive], score[~positive]).statistic
    assert found == pytest.approx(u / (positive.sum() * (~positive).sum()))


def test_replicas_equal_sklearn_on_the_rows_of_the_units_drawn(cases):
    score, positive, unit = cases
    weights = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), size=20).astype(float)
    found = roc.areas([roc.pairs(score, positive, unit, 7)], weights)
    for got, w in zip(found, weights, strict=True):
        drawn = np.repeat(np.arange(90), w[unit].astype(int))
        assert got == pytest.approx(roc_auc_score(positive[drawn], score[drawn]))


def test_strata_are_weighted_by_their_pairs(cases):
    score, positive, unit = cases
    layer = np.arange(90) % 3
    strata = [roc.pairs(score[layer == at], positive[layer == at], unit[layer == at], 7) for at in range(3)]
    each = [roc_auc_score(positive[layer == at], score[layer == at]) for at in range(3)]
    pairs = [positive[layer == at].sum() * (~positive[layer == at]).sum() for at in range(3)]
    assert roc.area(strata) == pytest.approx(np.average(each, weights=pairs))
    drawn = roc.areas_of_strata(strata, np.array([[1.0, 1, 1], [0, 2, 0], [2, 1, 0]]))
    expected = [np.average(each, weights=np.array(w) * pairs) for w in ([1, 1, 1], [0, 2, 0], [2, 1, 0])]
    assert drawn == pytest.approx(expected)


def test_one_class_has_no_area():
    pairs = roc.pairs(np.arange(3.0), np.ones(3, bool), np.arange(3), 3)
    assert np.isnan(roc.area([pairs])) and np.isnan(roc.areas([pairs], np.ones((2, 3)))).all()
