import itertools
import os
import warnings

import numpy as np
import pytest
from scipy import integrate, stats

from raylab import laws


@pytest.fixture(scope="module")
def rmt():
    """weightwatcher's random-matrix theory, on the CPU."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("weightwatcher.RMT_Util")


@pytest.mark.parametrize(("alpha", "xmin"), [(1.5, 0.01), (3.2, 1.0), (8.0, 40.0)])
def test_power_law_is_scipys_pareto(alpha, xmin):
    x = np.geomspace(xmin / 3, 100 * xmin, 57)
    pareto = stats.pareto(b=alpha - 1, scale=xmin)
    assert laws.power_law(x, alpha, xmin) == pytest.approx(pareto.pdf(x), rel=1e-12)
    assert laws.power_law_survival(x, alpha, xmin) == pytest.approx(pareto.sf(x), rel=1e-12)


@pytest.mark.parametrize(("Q", "sigma"), [(1.0, 1.0), (1.5, 0.8), (10.0, 1.3)])
def test_marchenko_pastur_is_weightwatchers(rmt, Q, sigma):
    x, theirs = rmt.marchenko_pastur_pdf(1e-3, 10, Q, sigma)
    assert laws.marchenko_pastur(x[1:], sigma, Q) == pytest.approx(theirs[1:], rel=1e-10)
    lower, upper = laws.marchenko_pastur_edges(sigma, Q)
    outside = np.array([lower - 0.01, upper + 0.01])
    assert not laws.marchenko_pastur(outside, sigma, Q).any()
    if Q > 1:
        area, _ = integrate.quad(lambda x: float(laws.marchenko_pastur(np.array([x]), sigma, Q)[0]), lower, upper)
        assert area == pytest.approx(1, abs=1e-6)


def test_quarter_circle_is_weightwatchers_and_its_squares_are_those_of_a_random_matrix(rmt):
    x, theirs = rmt.quarter_circle_pdf(0, 3)
    assert laws.quarter_circle(x) == pytest.approx(theirs, abs=1e-4)
    weights = np.random.default_rng(0).normal(size=(600, 600)) / np.sqrt(600)
    evals = np.linalg.eigvalsh(weights.T @ weights)
    edges = np.array([0.3, 0.8, 1.5, 2.5, 4.0])
    expected = [integrate.quad(laws.quarter_circle_of_squares, *pair)[0] for pair in itertools.pairwise(edges)]
    assert np.histogram(evals, edges)[0] / 600 == pytest.approx(expected, abs=0.01)


def test_an_array_of_sigmas_leads_the_shape():
    found = laws.marchenko_pastur(np.linspace(0.1, 3, 7), np.array([0.5, 1.0]), 2.0)
    assert found.shape == (2, 7)
    assert found[1] == pytest.approx(laws.marchenko_pastur(np.linspace(0.1, 3, 7), 1.0, 2.0))
