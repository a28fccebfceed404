"""Retractions against numpy and scipy."""

import numpy as np
import pytest
import scipy.linalg
import torch

from raylab.errors import UserError
from raylab.train.retraction import RETRACTIONS, OnceAnEpoch, newton_schulz, polar, polished, project, qr, retraction_of
from raylab.types import RetractionOptions

SHAPES = [(40, 40), (60, 25), (10, 1)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def near(shape, by=0.01):
    """Orthonormal columns, and a little more."""
    rng = np.random.default_rng([3, *shape])
    q = np.linalg.qr(rng.standard_normal(shape))[0]
    return q + by * rng.standard_normal(shape) / np.sqrt(shape[0])


def single(array):
    return torch.from_numpy(array.astype(np.float32))


@shapes
def test_polar_is_scipys(shape):
    q = near(shape, by=0.5)
    np.testing.assert_allclose(polar(single(q)), scipy.linalg.polar(q)[0], atol=2e-6)


def test_polar_needs_no_singular_values_that_differ_or_are_near_one():
    left, right = near((60, 25), 0), near((25, 25), 0)
    for values in (np.ones(25), np.r_[np.ones(24), 1 + 1e-7], np.geomspace(1e-2, 1e2, 25)):
        q = single((left * values) @ right)
        exact = scipy.linalg.polar(q.double().numpy())[0]
        np.testing.assert_allclose(polar(q), exact, atol=1e-6)


@shapes
def test_newton_schulz_nears_the_polar_factor_by_the_square_of_the_error(shape):
    q = near(shape)
    exact = scipy.linalg.polar(q)[0]
    errors = [np.abs(newton_schulz(single(q), k).numpy() - exact).max() for k in range(4)]
    assert errors[0] > 1e-4 and errors[1] < errors[0] ** 2 * 50 and errors[2] < 3e-7 and errors[3] < 3e-7


@shapes
def test_qr_has_a_positive_diagonal(shape):
    q = near(shape, by=0.5) * np.where(np.arange(shape[1]) % 2, -1, 1)
    theirs, r = scipy.linalg.qr(q, mode="economic")
    ours = qr(single(q)).numpy()
    np.testing.assert_allclose(ours, theirs * np.sign(np.diag(r)), atol=3e-6)
    assert ((ours * q).sum(0) > 0).all()  # no column has turned round


@pytest.mark.parametrize("by", [0.0, 1e-7, 0.1, 20.0])
@shapes
def test_polishing_is_scipys_polar_factor_in_float64(shape, by):
    q = near(shape, by)
    ours, off = polished(q)
    np.testing.assert_allclose(ours, scipy.linalg.polar(q)[0], atol=1e-13)
    assert np.abs(ours.T @ ours - np.eye(shape[1])).max() < 1e-14
    assert off == pytest.approx(np.abs(q.T @ q - np.eye(shape[1])).max(), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("singular", [1.5, 2.0, 3.0])
def test_polishing_finds_the_polar_factor_of_what_is_far_in_one_direction(singular):
    """Every entry of Q^T Q - I is small, and yet the iteration alone would miss it (2) or never end (3)."""
    rng = np.random.default_rng(8)
    polar_factor, direction = np.linalg.qr(rng.standard_normal((300, 200)))[0], rng.standard_normal(200)
    direction /= np.linalg.norm(direction)
    q = polar_factor @ (np.eye(200) + (singular - 1) * np.outer(direction, direction))
    ours, off = polished(q)
    assert off < 0.5 and np.abs(ours - polar_factor).max() < 1e-12


def test_a_projection_is_the_nearest_matrix_of_that_spectrum():
    rng = np.random.default_rng(1)
    w, spectrum = rng.standard_normal((12, 7)), np.sort(rng.uniform(0, 3, 7))[::-1]
    ours = project(w, spectrum)
    np.testing.assert_allclose(np.linalg.svd(ours, compute_uv=False), spectrum, rtol=0, atol=1e-14)
    found = np.linalg.norm(ours - w)
    assert found == pytest.approx(np.linalg.norm(np.linalg.svd(w, compute_uv=False) - spectrum))  # Mirsky's bound
    for _ in range(50):
        u, v = (np.linalg.qr(rng.standard_normal((n, 7)))[0] for n in (12, 7))
        assert np.linalg.norm((u * spectrum) @ v.T - w) > found


def test_names_and_options():
    options = RetractionOptions(iterations=1)
    q = single(near((20, 8)))
    assert torch.equal(retraction_of("newton_schulz", options)(q), newton_schulz(q, 1))
    assert retraction_of("raylab.train.retraction:polar", options) is polar
    assert {name for name in RETRACTIONS if isinstance(RETRACTIONS.resolve(name), OnceAnEpoch)} == {
        "svd_projection",
        "free",
    }
    with pytest.raises(UserError, match=r"Unknown retraction 'polr'. Did you mean 'polar'\?"):
        retraction_of("polr", options)
