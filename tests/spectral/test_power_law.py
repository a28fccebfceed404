import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylab.errors import UserError
from raylab.spectral import fit, fit_evals, spectrum
from raylab.types import Layer, SpectralOptions

bounded = settings(max_examples=60, derandomize=True, deadline=None)
RELATIVE = SpectralOptions(threshold_kind="relative", threshold=1e-8)


def exhaustive(points):
    """The definition, point by point: alpha, D and xmin of the first least D."""
    best = (math.inf, math.nan, math.nan)
    for i in range(len(points) - 1):
        tail = points[i:]
        n = len(tail)
        spread = np.sum(np.log(tail)) - n * np.log(tail[0])
        if spread <= 1e-12:
            continue
        alpha = 1 + n / spread
        D = np.max(np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(n) / n))
        if best[0] - 1e-13 > D:
            best = (D, alpha, tail[0])
    return best


def samples(seed, size):
    """Spectra of several characters: power law, exponential, bulk with a tail, ties."""
    rng = np.random.default_rng([seed, size])
    return {
        "pareto": rng.pareto(1 + seed % 4, size) + 1,
        "exponential": rng.exponential(size=size) + 1e-3,
        "mixture": np.concatenate([rng.uniform(0.1, 1, size - size // 4), rng.pareto(2, size // 4) + 1]),
        "ties": np.repeat(rng.pareto(2, size // 3 + 1) + 1, 3)[:size],
    }


@pytest.mark.parametrize("size", [20, 33, 64, 150, 400, 1200])
@pytest.mark.parametrize("seed", range(6))
def test_the_pruned_scan_is_the_exhaustive_one(seed, size):
    for kind, points in samples(seed, size).items():
        points = np.sort(points)
        found = fit_evals(points)
        D, alpha, xmin = exhaustive(points)
        assert found.status == "ok"
        assert (found.xmin, found.alpha, found.D) == pytest.approx((xmin, alpha, D), rel=1e-9), kind


@bounded
@given(st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 1e-5, 2.0]), max_size=60))
def test_any_spectrum_has_an_answer(numbers):
    found = fit_evals(np.sort(np.array(numbers, dtype=float)))
    if found.status == "ok":
        assert found.alpha > 1
        assert 0 <= found.D <= 1
        assert found.xmin < found.xmax == max(numbers)
        assert found.num_tail == sum(number >= found.xmin for number in numbers)
    else:
        assert found.status in ("too_few", "constant", "no_tail")
        assert all(math.isnan(x) for x in (found.alpha, found.D, found.xmin, found.xmax, found.sigma))
        assert found.num_tail == 0


@bounded
@given(seed=st.integers(0, 2**32), scale=st.floats(1e-6, 1e6))
def test_a_relative_threshold_makes_alpha_scale_invariant(seed, scale):
    evals = np.sort(np.random.default_rng(seed).pareto(1.5, 120) + 0.1)
    one, other = fit_evals(evals, RELATIVE), fit_evals(evals * scale, RELATIVE)
    assert (other.alpha, other.D, other.num_tail) == pytest.approx((one.alpha, one.D, one.num_tail), rel=1e-9)
    assert other.xmin == pytest.approx(one.xmin * scale, rel=1e-12)


def test_an_absolute_threshold_is_not_scale_invariant():
    evals = np.sort(np.random.default_rng(0).pareto(1.5, 120) + 0.1)
    assert fit_evals(evals * 1e-5).alpha != pytest.approx(fit_evals(evals).alpha, rel=1e-3)


@bounded
@given(seed=st.integers(0, 2**32), rows=st.integers(20, 40), columns=st.integers(20, 40))
def test_transpose_permutation_and_rotation_change_nothing(seed, rows, columns):
    rng = np.random.default_rng(seed)
    weights = rng.standard_t(3, size=(rows, columns))
    rotation = np.linalg.qr(rng.normal(size=(rows, rows))).Q
    variants = [weights.T, weights[rng.permutation(rows)], weights[:, rng.permutation(columns)], rotation @ weights]
    alpha = alpha_of(weights)
    assert [alpha_of(variant) for variant in variants] == pytest.approx([alpha] * 4, rel=1e-7)


def alpha_of(weights):
    return fit(spectrum(weights, Layer("x", 0, "linear", weights.shape), RELATIVE)).alpha


@pytest.mark.parametrize(
    ("evals", "status"),
    [
        ([], "too_few"),
        ([1.0], "too_few"),
        ([0.0, 0.0, 0.0], "too_few"),
        ([0.0, 1e-6, 3.0], "too_few"),
        ([2.0] * 30, "constant"),
        ([1.0, 1.0 + 1e-13, 1.0 + 2e-13], "constant"),
        ([1.0, math.nan], "non_finite"),
        ([1.0, math.inf], "non_finite"),
        ([1.0, 2.0], "ok"),
        ([0.0] * 50 + [1.0, 2.0, 3.0], "ok"),
    ],
)
def test_every_odd_spectrum_has_a_status(evals, status):
    assert fit_evals(np.array(evals)).status == status


def test_two_points_are_solved_by_hand():
    found = fit_evals(np.array([1.0, math.e]), SpectralOptions(small_sample="standard"))
    assert found.alpha == pytest.approx(3.0)  # 1 + 2 / ln(e)
    assert pytest.approx(abs(1 - math.exp(-2) - 0.5)) == found.D
    assert found.sigma == pytest.approx(2 / math.sqrt(2))
    assert fit_evals(np.array([1.0, math.e])).alpha == pytest.approx(2.0)  # the oracle's correction: 1 + (2 - 1) / 1


def test_below_twenty_points_standard_is_the_rule_above_twenty():
    points = np.sort(np.random.default_rng(5).pareto(2, 15) + 1)
    D, alpha, xmin = exhaustive(points)
    found = fit_evals(points, SpectralOptions(small_sample="standard"))
    assert (found.alpha, found.D, found.xmin) == pytest.approx((alpha, D, xmin))
    oracle = fit_evals(points)
    assert oracle.num_tail >= 8
    assert oracle.alpha != pytest.approx(alpha)


def test_a_tail_of_ties_never_gives_an_infinite_alpha():
    found = fit_evals(np.array([1.0] * 25 + [7.0] * 25))
    assert found.status == "ok"
    assert found.xmin == 1.0
    assert found.num_tail == 50


def test_alpha_of_a_pure_power_law_is_found():
    quantiles = (np.arange(5000) + 0.5) / 5000
    found = fit_evals(np.sort((1 - quantiles) ** (-1 / 1.7)))  # density exponent 2.7
    assert found.alpha == pytest.approx(2.7, abs=0.01)
    assert found.num_tail > 4000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SpectralOptions(estimator="kss"), "Did you mean 'ks'"),
        (SpectralOptions(small_sample="both"), "small_sample must be oracle or standard"),
        (SpectralOptions(threshold_kind="rel"), "threshold_kind must be absolute or relative"),
    ],
)
def test_unknown_options_are_one_clear_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        fit_evals(np.arange(1.0, 10.0), options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("estimator", ["median", "xmin_peak"])
@pytest.mark.parametrize("evals", [[], [1.0], [0.0, 2.0, 2.0], [1.0, 2.0], [1.0, 2.0, 2.0], [1.0, 5.0, 5.0, 5.0]])
def test_other_estimators_have_an_answer_for_few_points(estimator, evals):
    found = fit_evals(np.array(evals), SpectralOptions(estimator=estimator))
    assert (found.status == "ok") == math.isfinite(found.alpha)


def test_hill_from_the_median():
    points = np.sort(np.random.default_rng(1).pareto(2, 101) + 1)
    found = fit_evals(points, SpectralOptions(estimator="median"))
    assert found.xmin == np.median(points)
    assert found.alpha == pytest.approx(1 + 51 / np.log(points[50:] / points[50]).sum())
