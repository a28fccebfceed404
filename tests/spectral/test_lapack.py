"""Eigenvalues by address against numpy's, and the lanes of the compiled iteration against each other."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylab.spectral import compiled, lapack


def matrices(count, rows, columns, seed=0):
    return list(np.random.default_rng(seed).standard_t(3, size=(count, rows, columns)))


def truth(matrix):
    return np.sort(np.linalg.svd(matrix.astype(np.float64), compute_uv=False) ** 2)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (2, 2), (50, 3), (90, 64), (900, 300)])
def test_they_are_squared_singular_values(shape):
    for matrix, evals in zip(made := matrices(3, *shape), lapack.eigenvalues(made), strict=True):
        np.testing.assert_allclose(evals, truth(matrix), rtol=0, atol=1e-13 * truth(matrix)[-1])


@pytest.mark.parametrize("shape", [(300, 200), (5000, 700)])
def test_the_gram_matrix_of_any_layout_and_width(shape):
    """Large ones are widened block by block."""
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = np.tril(weights.astype(np.float64).T @ weights.astype(np.float64))
    padded = np.zeros((2 * shape[0], shape[1]), np.float32)
    padded[::2] = weights
    for same in (weights, np.asfortranarray(weights), padded[::2], weights.astype(np.float64)):
        np.testing.assert_allclose(np.tril(lapack.gram(same)), expected, rtol=1e-11, atol=1e-9)
    assert lapack.gram(weights, "float32").dtype == np.float32


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=20), st.integers(1, 40), st.integers(0, 19))
def test_a_spectrum_does_not_depend_on_what_is_solved_beside_it(seeds, n, at):
    """To the last bit: the answer must not depend on how the work is spread."""
    made = [np.random.default_rng(seed).standard_t(2, size=(n + 5, n)) * 10.0 ** (seed % 7) for seed in seeds]
    at %= len(made)
    np.testing.assert_array_equal(lapack.eigenvalues(made)[at], lapack.eigenvalues([made[at]])[0])


def test_odd_matrices_among_others():
    n = 24
    odd = [np.eye(n), np.zeros((n, n)), np.diag(np.arange(1.0, n + 1)), np.ones((n, n)), 1e150 * np.eye(n)]
    odd += [np.full((n, n), np.nan), np.full((n, n), np.inf), 1e-140 * matrices(1, n, n)[0]]
    for matrix, evals in zip(odd, lapack.eigenvalues(odd), strict=True):
        if np.isfinite(matrix).all():
            np.testing.assert_allclose(evals, truth(matrix), rtol=0, atol=1e-13 * max(truth(matrix)[-1], 1e-300))
        else:
            assert np.isnan(evals).all()


def test_an_infinity_that_a_sum_would_hide():
    weights = matrices(1, 30, 10)[0]
    weights[3, 7] = -np.inf
    assert np.isnan(lapack.eigenvalues([weights])[0]).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_two_stage_reduction(monkeypatch, dtype):
    monkeypatch.setattr(lapack, "TWO_STAGE_FROM", 50)
    matrix = matrices(1, 300, 200)[0]
    found = lapack.eigenvalues([matrix], dtype)[0]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, truth(matrix), rtol=0, atol=(1e-13 if dtype == "float64" else 1e-4) * found[-1])


def test_without_numba(monkeypatch):
    made = matrices(4, 60, 40)
    expected = [truth(matrix) for matrix in made]
    monkeypatch.setattr(lapack, "_compiled", lambda: None)
    np.testing.assert_allclose(lapack.eigenvalues(made), expected, rtol=1e-9)


def test_a_matrix_that_falls_apart_changes_no_bit_of_its_neighbours():
    """Blocks of equal weights: its lane does not end, because the iteration does not split it as LAPACK does."""
    apart = np.kron(np.eye(8), np.ones((6, 6)))
    assert np.isnan(compiled.eigenvalues(*(part[None] for part in lapack.tridiagonal(lapack.gram(apart))))).all()
    beside = matrices(9, 48, 48)
    found, *others = lapack.eigenvalues([apart, *beside])
    np.testing.assert_allclose(found, truth(apart), rtol=0, atol=1e-13 * truth(apart)[-1])
    for matrix, evals in zip(beside, others, strict=True):
        np.testing.assert_array_equal(evals, lapack.eigenvalues([matrix])[0])


def test_a_cache_that_cannot_be_written(tmp_path):
    """As on a full disk: numba compiles, and then cannot keep what it compiled."""
    code = """
import numpy
from numba.core import caching
from raylab.spectral import compiled, lapack
def full(*_): raise OSError(28, "No space left on device")
caching.IndexDataCacheFile._save_data = full
print(lapack.eigenvalues([numpy.eye(5)] * 2)[1][0], lapack.eigenvalues([numpy.eye(5)])[0][0])
"""
    cache = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=cache, capture_output=True, text=True)
    assert done.stdout == "1.0 1.0\n"


def test_threads_that_begin_together():
    """The first calls of all load the routines."""
    code = """
import sys, threading, numpy
sys.setswitchinterval(1e-6)
from raylab.spectral import lapack
start, failed = threading.Barrier(8), []
def work():
    start.wait()
    try: lapack.eigenvalues([numpy.eye(5)])
    except BaseException as error: failed.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True)
