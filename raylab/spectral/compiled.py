"""The eigenvalues of symmetric tridiagonal matrices, eight at a time: needs numba.

The root-free QL iteration of Pal, Walker and Kahan (LAPACK's dsterf) spends its time waiting for one division after
another. Eight matrices of one size keep eight lanes of a vector unit busy, in 0.3 of the time. A lane that has
converged is left alone, so that the eigenvalues of a matrix do not depend on the others, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np

from raylab.types import Array

LANES = 8
MOST_SWEEPS = 80  # for one eigenvalue; it takes two or three
EPSILON_SQUARED = 2.0**-106


def eigenvalues(diagonals: Array, off_diagonals: Array) -> Array:
    """Ascending eigenvalues of tridiagonal matrices, (count, n) from (count, n) and (count, n - 1); float64.

    NaN for a matrix that does not converge, as one of blocks that are alike may not: LAPACK splits such a matrix first.
    It changes no bit of the others.
    """
    count, n = diagonals.shape
    scale = np.abs(diagonals).max(axis=1, initial=0.0)
    exponent = np.frexp(np.where(scale > 0, scale, 1.0))[1][:, None]  # squares must neither over- nor underflow
    evals = np.empty((count, n))
    d = np.ldexp(diagonals, -exponent)
    squares = np.square(np.ldexp(off_diagonals, -exponent))
    for start in range(0, count, LANES):
        rows = slice(start, start + LANES)
        evals[rows] = _solved(d[rows], squares[rows])
    return np.ldexp(evals, exponent)


def _solved(diagonals: Array, squares: Array) -> Array:
    """Of at most LANES matrices; where some do not converge, each by itself, which gives the others the same bits."""
    count, n = diagonals.shape
    width = LANES if count > 1 else 1
    d, off = np.ones((n, width)), np.zeros((n, width))
    d[:, :count], off[: n - 1, :count] = diagonals.T, squares.T
    if _call(_eight if width == LANES else _one, d, off):
        return np.sort(d.T[:count], axis=1)
    if count == 1:
        return np.full((1, n), np.nan)
    return np.concatenate([_solved(diagonals[i : i + 1], squares[i : i + 1]) for i in range(count)])


def _call(solve: Callable[[Array, Array], bool], d: Array, squares: Array) -> bool:
    """The first call compiles, and fails where the cache's disk is full; by then the code is there all the same."""
    try:
        return solve(d, squares)
    except OSError:
        return solve(d, squares)


def _lanes(lanes: int):
    """The iteration for a fixed number of matrices: a constant, so that the compiler unrolls the loops over them."""

    @numba.njit(cache=True, nogil=True, error_model="numpy")
    def solve(d: Array, squares: Array) -> bool:
        """Eigenvalues of (n, lanes) diagonals and squared off-diagonals, in place of the diagonals, not in order."""
        n = d.shape[0]
        c, s, gamma, p, shift = np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes)
        active = np.empty(lanes)
        top = sweeps = 0
        while top < n - 1:
            remaining = 0.0
            for k in range(lanes):
                small = squares[top, k] <= EPSILON_SQUARED * abs(d[top, k] * d[top + 1, k])
                active[k] = 0.0 if small else 1.0
                remaining += active[k]
            if remaining == 0.0:
                top += 1
                sweeps = 0
                continue
            sweeps += 1
            if sweeps > MOST_SWEEPS:
                return False
            for k in range(lanes):
                root = math.sqrt(squares[top, k])
                sigma = (d[top + 1, k] - d[top, k]) / (2.0 * root)
                distance = math.sqrt(sigma * sigma + 1.0)
                shift[k] = d[top, k] - root / (sigma + (distance if sigma >= 0 else -distance))
                c[k], s[k] = 1.0, 0.0
                gamma[k] = d[n - 1, k] - shift[k]
                p[k] = gamma[k] * gamma[k]
            for i in range(n - 2, top - 1, -1):
                for k in range(lanes):
                    inside = active[k] != 0.0
                    square = squares[i, k]
                    r = p[k] + square
                    above = s[k] * r
                    if i < n - 2:
                        squares[i + 1, k] = above if inside else squares[i + 1, k]
                    old_c, inverse = c[k], 1.0 / r
                    c[k], s[k] = p[k] * inverse, square * inverse
                    old_gamma, alpha = gamma[k], d[i, k]
                    gamma[k] = c[k] * (alpha - shift[k]) - s[k] * old_gamma
                    d[i + 1, k] = old_gamma + (alpha - gamma[k]) if inside else d[i + 1, k]
                    p[k] = gamma[k] * gamma[k] / c[k] if c[k] != 0.0 else old_c * square
            for k in range(lanes):
                inside = active[k] != 0.0
                squares[top, k] = s[k] * p[k] if inside else squares[top, k]
                d[top, k] = shift[k] + gamma[k] if inside else d[top, k]
        return True

    return solve


_eight, _one = _lanes(LANES), _lanes(1)
