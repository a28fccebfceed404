"""Rank correlation against scipy, and against data that is really resampled."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raylab.results import rank

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("ci")


def data(seed, n, k=3, levels=None):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, k)), rng.normal(size=n)
    y += x[:, 0]
    return (x, y) if levels is None else (np.round(x * levels), np.round(y * levels))


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("n", [5, 40, 300])
def test_estimates_equal_scipy(n, levels):
    x, y = data(n, n, levels=levels)
    for column, rho, tau in zip(x.T, rank.spearman(x, y), rank.kendall(x, y), strict=True):
        assert rho == pytest.approx(stats.spearmanr(column, y).statistic, abs=1e-12)
        assert tau == pytest.approx(stats.kendalltau(column, y).statistic, abs=1e-12)


def test_least_squares_equals_scipy():
    x, y = data(1, 50)
    rmse, r2 = rank.least_squares(x, y)
    for column, error, share in zip(x.T, rmse, r2, strict=True):
        line = stats.linregress(column, y)
        residuals = y - line.intercept - line.slope * column
        assert error == pytest.approx(np.sqrt(np.mean(residuals**2)), rel=1e-12)
        assert share == pytest.approx(line.rvalue**2, rel=1e-12)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(3, 30),
    units=st.integers(1, 12),
    levels=st.sampled_from([None, 1, 2]),
    block=st.sampled_from([1, 64, 1 << 22]),
)
def test_weighted_bootstrap_equals_repeating_the_rows(seed, n, units, levels, block):
    x, y = data(seed, n, 2, levels)
    rng = np.random.default_rng(seed)
    unit = rng.integers(units, size=n)
    weights = rng.multinomial(units, np.full(units, 1 / units), size=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank, "_BLOCK", block)
        draws = rank.bootstrap(x, y, unit, weights)
    for b, times in enumerate(weights):
        rows = np.repeat(np.arange(n), times[unit])
        for k in range(2):
            xs, ys = x[rows, k], y[rows]
            if len(rows) < 2 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
                assert np.isnan(draws.rho[b, k]) and np.isnan(draws.tau[b, k])
            else:
                assert draws.rho[b, k] == pytest.approx(stats.spearmanr(xs, ys).statistic, abs=1e-5)
                assert draws.tau[b, k] == pytest.approx(stats.kendalltau(xs, ys).statistic, abs=1e-5)


@pytest.mark.parametrize("levels", [None, 2])
def test_null_equals_scipy_on_permuted_data(levels):
    x, y = data(3, 30, 2, levels)
    orders = np.stack([np.random.default_rng(i).permutation(30) for i in range(5)])
    draws = rank.null(x, y, orders)
    for b, order in enumerate(orders):
        for k in range(2):
            assert draws.rho[b, k] == pytest.approx(stats.spearmanr(x[:, k], y[order]).statistic, abs=1e-12)
            assert draws.tau[b, k] == pytest.approx(stats.kendalltau(x[:, k], y[order]).statistic, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y"), [((1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6)), ((1, 1, 2, 3, 3, 3), (1, 2, 2, 2, 3, 4))]
)
def test_deviation_of_tau_equals_that_over_all_permutations(x, y):
    taus = [stats.kendalltau(x, order).statistic for order in itertools.permutations(y)]
    assert rank._tau_deviation(np.array(x, float), np.array(y, float)) == pytest.approx(np.std(taus), rel=1e-12)


@pytest.mark.parametrize("levels", [None, 1])
def test_null_of_tau_for_many_rows_agrees_with_the_exact_one(monkeypatch, levels):
    x, y = data(4, 200, 2, levels)
    orders = np.argsort(np.random.default_rng(0).random((4000, 200)), axis=1)
    exact = rank.null(x, y, orders).tau
    monkeypatch.setattr(rank, "TAU_EXACT_ROWS", 100)
    scaled = rank.null(x, y, orders).tau
    for k in range(2):
        assert np.corrcoef(exact[:, k], scaled[:, k])[0, 1] > 0.998
        assert np.quantile(np.abs(exact[:, k]), [0.5, 0.95, 0.99]) == pytest.approx(
            np.quantile(np.abs(scaled[:, k]), [0.5, 0.95, 0.99]), rel=0.02
        )


@pytest.mark.parametrize(("k", "other", "levels"), [(7, 7, None), (20, 30, None), (12, 12, 2)])
def test_separation_alone_equals_metrics_that_only_separate(k, other, levels):
    rng = np.random.default_rng(k)
    group = np.arange(k + other) < k
    y = rng.normal(size=k + other) + 1.5 * group
    y = y if levels is None else np.round(levels * y)
    x = rng.permuted(np.tile(np.arange(k + other), (1000, 1))[:, :k] + 1000.0, axis=1)
    below = rng.permuted(np.tile(np.arange(float(other)), (1000, 1)), axis=1)
    x = np.concatenate([x, below], axis=1).T
    found = rank.separated(y, group)
    assert found == pytest.approx((rank.spearman(x, y).mean(), rank.kendall(x, y).mean()), abs=0.012)


def test_separation_of_groups_that_y_tells_apart_depends_on_their_sizes_alone():
    y, group = np.concatenate([np.arange(100.0), 500 + np.arange(100.0)]), np.arange(200) >= 100
    assert rank.separated(y, group) == pytest.approx((3e4 / (200**2 - 1), 2e4 / (200 * 199)))
    assert np.isnan(rank.separated(y, np.ones(200, bool))).all() and np.isnan(rank.separated(0 * y, group)).all()
