import math

import numpy as np
import pytest

from raylab.spectral import marchenko_pastur
from raylab.spectral.marchenko_pastur import fit_bulk


def gaussian(N, M, seed=0):
    weights = np.random.default_rng(seed).normal(size=(N, M))
    return np.linalg.eigvalsh(weights.T @ weights)


@pytest.mark.parametrize(("N", "M"), [(600, 300), (900, 300), (400, 400)])
def test_a_random_matrix_is_all_bulk(N, M):
    found = fit_bulk(gaussian(N, M), N, M)
    assert found.status == "ok"
    assert found.sigma == pytest.approx(1, abs=0.03)
    assert found.softrank == pytest.approx(1, abs=0.08)
    assert found.num_spikes == 0
    assert found.bulk_edge == pytest.approx((math.sqrt(N) + math.sqrt(M)) ** 2, rel=0.08)


def test_planted_spikes_are_counted():
    evals = np.sort(np.concatenate([gaussian(800, 397), [8e3, 9e3, 1.2e4]]))
    found = fit_bulk(evals, 800, 400)
    assert found.num_spikes == 3
    assert found.softrank < 0.3


def test_the_units_of_the_weights_do_not_matter():
    evals = gaussian(500, 200)
    one, other = fit_bulk(evals, 500, 200), fit_bulk(evals * 1e-9, 500, 200)
    assert (other.sigma, other.softrank) == pytest.approx((one.sigma, one.softrank), rel=1e-9)
    assert other.bulk_edge == pytest.approx(one.bulk_edge * 1e-9)


@pytest.mark.parametrize(
    ("evals", "status"),
    [
        ([], "too_few"),
        ([1.0], "too_few"),
        ([0.0] * 5, "zero"),
        ([1.0] * 5, "constant"),
        ([1.0, math.nan], "non_finite"),
    ],
)
@pytest.mark.parametrize("N", [5, 9])
def test_every_odd_spectrum_has_a_status(evals, status, N):
    found = fit_bulk(np.array(evals), N, 5)
    assert found.status == status
    assert math.isnan(found.softrank)


def test_rank_one_has_an_answer():
    evals = np.zeros(50)
    evals[-1] = 3.0
    found = fit_bulk(evals, 80, 50)
    assert (found.status == "ok") == math.isfinite(found.softrank)


@pytest.mark.parametrize("seed", range(40))
def test_the_descent_is_scipys(seed):
    from scipy.optimize import fmin

    a, b, c, start = np.random.default_rng(seed).normal(size=4)

    def bumpy(x):
        return (x - a) ** 2 * (1 + 0.3 * np.sin(5 * x + b)) + c * abs(x - b)

    theirs = fmin(lambda point: float(bumpy(point[0])), start, disp=False)[0]
    assert marchenko_pastur._descend(lambda x: float(bumpy(x)), float(start)) == pytest.approx(theirs, rel=1e-12)
