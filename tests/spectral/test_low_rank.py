import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylab.spectral import low_rank


def oracle(B, A):
    """The SVD of the whole product."""
    return np.sort(np.linalg.svd(B @ A, compute_uv=False) ** 2)


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), rank=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_the_spectrum_of_the_product(rows, columns, rank, seed):
    rng = np.random.default_rng(seed)
    B, A = rng.normal(size=(rows, rank)), rng.normal(size=(rank, columns))
    evals = low_rank.eigenvalues(B, A)
    assert evals.shape == (min(rows, columns),) and (np.diff(evals) >= 0).all()
    np.testing.assert_allclose(evals, oracle(B, A), rtol=1e-9, atol=1e-12 * evals[-1])


def test_zeros_beyond_the_rank_are_exact():
    rng = np.random.default_rng(0)
    evals = low_rank.eigenvalues(rng.normal(size=(300, 8)), rng.normal(size=(8, 200)))
    assert np.count_nonzero(evals) == 8 and not evals[:192].any()


def test_small_singular_values_are_not_lost():
    """A Gram matrix would lose those below 1e-8 of the largest."""
    rng = np.random.default_rng(1)
    (U, _), (V, _) = np.linalg.qr(rng.normal(size=(100, 4))), np.linalg.qr(rng.normal(size=(80, 4)))
    singular = np.array([1e-11, 1e-6, 1e-2, 1.0])
    evals = low_rank.eigenvalues(U * singular, V.T)
    np.testing.assert_allclose(np.sqrt(evals[-4:]), singular, rtol=1e-4)


def test_a_factor_of_zeros_as_an_adapter_begins():
    assert not low_rank.eigenvalues(np.zeros((30, 4)), np.ones((4, 20))).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_gives_nan(bad):
    B, A = np.ones((6, 2)), np.ones((2, 5))
    A[0, 3] = bad
    assert np.isnan(low_rank.eigenvalues(B, A)).all()


def test_half_precision_is_widened():
    rng = np.random.default_rng(2)
    B, A = rng.normal(size=(20, 3)).astype(np.float16), rng.normal(size=(3, 10)).astype(np.float16)
    np.testing.assert_allclose(low_rank.eigenvalues(B, A)[-3:], oracle(B.astype(float), A.astype(float))[-3:])


def test_factors_without_a_product():
    with pytest.raises(ValueError, match="no product"):
        low_rank.eigenvalues(np.ones((4, 3)), np.ones((2, 5)))
