"""Rank correlation and least squares of many metrics against one target, with resampling, all in numpy.

Shapes: n rows, k metrics, m resampled units (such as models), B replicas. Everything rests on the matrix of signs
S_ij = sign(v_i - v_j): Kendall's tau-b is a sum over S, and the centred mid-rank of v_i is half of sum_j S_ij. Both
stay true when row i counts w_i times, so a bootstrap is a product of weights with S, summed within units beforehand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy.stats, which takes a second to be imported, only when it is first asked for
from numpy.typing import NDArray

Float = NDArray[np.float64]
_BLOCK = 1 << 22  # entries of S held at a time: 16 MB in float32
# More rows than this, and tau's null draws are taken from rho's (see `null`).
TAU_EXACT_ROWS = 128


class Draws(NamedTuple):
    """Replicas of rho and tau, (B, k) each."""

    rho: Float
    tau: Float


def spearman(x_nk: Float, y_n: Float) -> Float:
    """Spearman's rho of every column of x with y (k,); NaN for a constant column."""
    return _unit_ranks(x_nk).T @ _unit_ranks(y_n)


def kendall(x_nk: Float, y_n: Float) -> Float:
    """Kendall's tau-b of every column of x with y (k,); NaN for a constant column."""
    return np.array([scipy.stats.kendalltau(x_n, y_n)[0] for x_n in x_nk.T])


def separated(y_n: Float, group_n: NDArray[np.bool_]) -> tuple[float, float]:
    """rho and tau-b with y of a metric that tells the two groups apart (`group_n` is higher) and nothing else.

    Expected values over the order within groups, without ties in the metric. Where y separates the groups as well, they
    depend on the sizes of the groups alone: 3 k l / (n^2 - 1) and 2 k l / (n (n - 1)), .750 and .503 for 100 and 100.
    NaN where a group is empty or y is constant.
    """
    n, k = len(y_n), int(group_n.sum())
    if k in (0, n) or np.ptp(y_n) == 0:
        return np.nan, np.nan
    ranks = scipy.stats.rankdata(y_n)
    above = ranks[group_n].sum() - k * (n + 1) / 2  # of the ranks in the group, over their mean
    pairs, ties = n * (n - 1) / 2, np.unique(y_n, return_counts=True)[1]
    rho = above * n / 2 / np.sqrt(np.square(ranks - (n + 1) / 2).sum() * n * (n**2 - 1) / 12)
    return float(rho), float(2 * above / np.sqrt(pairs * (pairs - (ties * (ties - 1) / 2).sum())))


def least_squares(x_nk: Float, y_n: Float) -> tuple[Float, Float]:
    """RMSE (root of the mean squared residual, in units of y) and R^2 of the line y = a + b x, (k,) each."""
    x, y = x_nk - x_nk.mean(axis=0), y_n - y_n.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = (x.T @ y) ** 2 / (np.square(x).sum(axis=0) * np.square(y).sum())
    r2 = np.clip(r2, 0.0, 1.0)
    return np.sqrt(np.square(y).mean() * (1 - r2)), r2


def bootstrap(x_nk: Float, y_n: Float, unit_n: NDArray[np.intp], weights_Bm: NDArray[Any]) -> Draws:
    """rho and tau-b of resampled data: unit `u` and all its rows count weights_Bm[b, u] times in replica b."""
    order = np.argsort(unit_n, kind="stable")
    units, starts = np.unique(unit_n[order], return_index=True)
    weights = weights_Bm[:, units].astype(np.float32)
    v_n = [*x_nk[order].T, y_n[order]]
    row_unit = np.repeat(np.arange(len(units)), np.diff([*starts, len(y_n)]))
    sums = [_Sums(weights) for _ in v_n]
    step = max(1, _BLOCK // len(y_n))
    for low in range(0, len(y_n), step):
        rows = slice(low, low + step)
        with_y, row_weights = _signs(v_n[-1][rows], v_n[-1]), weights[:, row_unit[rows]]
        # Mid-ranks of the resampled data, centred and doubled; their weighted mean is 0 because S is antisymmetric.
        rank_y = weights @ _within(with_y, starts).T
        for v, into in zip(v_n, sums, strict=True):
            into.add(_signs(v[rows], v), with_y, rank_y, row_weights, row_unit[rows], starts)
    rho, tau = zip(*(each.against(sums[-1]) for each in sums[:-1]), strict=True)
    return Draws(np.stack(rho, axis=1), np.stack(tau, axis=1))


class _Sums:
    """What rho and tau-b of one variable v with y need, summed over blocks of rows."""

    def __init__(self, weights_Bm: Any) -> None:
        m = weights_Bm.shape[1]
        self.weights = weights_Bm
        self.agree, self.untied = np.zeros((m, m), np.float32), np.zeros((m, m), np.float32)
        self.product, self.square = np.zeros(len(weights_Bm)), np.zeros(len(weights_Bm))

    def add(self, signs_bn: Any, with_y_bn: Any, rank_y: Any, row_weights: Any, units: Any, starts: Any) -> None:
        found, first = np.unique(units, return_index=True)
        self.agree[found] += np.add.reduceat(_within(signs_bn * with_y_bn, starts), first, axis=0)
        self.untied[found] += np.add.reduceat(_within(np.abs(signs_bn), starts), first, axis=0)
        rank = self.weights @ _within(signs_bn, starts).T
        weighted = row_weights * rank
        self.product += np.einsum("bn,bn->b", weighted, rank_y)
        self.square += np.einsum("bn,bn->b", weighted, rank)

    def against(self, y: _Sums) -> tuple[Float, Float]:
        """rho and tau-b, (B,) each."""
        agree, untied, y_untied = (self._pairs(matrix) for matrix in (self.agree, self.untied, y.untied))
        return _ratio(self.product, self.square * y.square), _ratio(agree, untied * y_untied)

    def _pairs(self, matrix_mm: Any) -> Float:
        return ((self.weights @ matrix_mm) * self.weights).sum(axis=1, dtype=np.float64)


def _within(matrix_bn: Any, starts: NDArray[np.intp]) -> Any:
    """Columns summed within units, (b, m)."""
    return matrix_bn if len(starts) == matrix_bn.shape[1] else np.add.reduceat(matrix_bn, starts, axis=1)


def null(x_nk: Float, y_n: Float, order_Bn: NDArray[np.intp]) -> Draws:
    """rho and tau-b with y permuted: replica b pairs x_i with y[order_Bn[b, i]].

    tau takes all pairs of rows up to TAU_EXACT_ROWS. Above, rho and tau are proportional under the null hypothesis but
    for a correlation of 1 - O(1/n) (Hajek's projection; .998 at n = 128), so tau's draws are rho's, rescaled to the
    exact standard deviation of tau-b over all permutations: what that changes is less than what a thousand
    permutations leave open.
    """
    ranks = _unit_ranks(y_n)
    rho = ranks[order_Bn] @ _unit_ranks(x_nk)
    if len(y_n) <= TAU_EXACT_ROWS:
        return Draws(rho, _null_tau(x_nk, y_n, order_Bn))
    scale = np.array([_tau_deviation(x_n, y_n) for x_n in x_nk.T]) * np.sqrt(len(y_n) - 1)
    return Draws(rho, rho * scale)


def _null_tau(x_nk: Float, y_n: Float, order_Bn: NDArray[np.intp]) -> Float:
    i, j = np.triu_indices(len(y_n), 1)
    x_pk = np.sign(x_nk[i] - x_nk[j]).astype(np.float32)
    y_ranks = scipy.stats.rankdata(y_n, method="dense").astype(np.int32)
    norm = np.sqrt(np.abs(x_pk).sum(axis=0, dtype=np.float64) * np.count_nonzero(y_ranks[i] != y_ranks[j]))
    tau, step = np.empty((len(order_Bn), x_nk.shape[1])), max(1, _BLOCK // max(len(i), 1))
    for low in range(0, len(order_Bn), step):
        permuted = y_ranks[order_Bn[low : low + step]]
        tau[low : low + step] = np.sign(permuted[:, i] - permuted[:, j]).astype(np.float32) @ x_pk
    with np.errstate(divide="ignore", invalid="ignore"):
        return tau / norm


def _tau_deviation(x_n: Float, y_n: Float) -> float:
    """Standard deviation of tau-b over all permutations, ties and all (Kendall 1970, chapter 5)."""
    n = len(x_n)
    t, u = (np.unique(v, return_counts=True)[1].astype(float) for v in (x_n, y_n))

    def over(power: int, c: Float) -> float:
        return float(np.sum(c * (c - 1) * ((2 * c + 5) if power == 0 else (c - 2) if power == 1 else 1)))

    whole = n * (n - 1.0)
    variance = (whole * (2 * n + 5) - over(0, t) - over(0, u)) / 18
    variance += over(1, t) * over(1, u) / (9 * whole * (n - 2)) + over(2, t) * over(2, u) / (2 * whole)
    return float(np.sqrt(variance) / np.sqrt((whole - over(2, t)) / 2 * (whole - over(2, u)) / 2))


def interval(draws: Float, confidence: float) -> tuple[float, float]:
    """Percentiles of the replicas that are defined; NaN where fewer than half are."""
    defined = draws[np.isfinite(draws)]
    if not len(defined) or 2 * len(defined) < len(draws):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def two_sided(estimate: float, null: Float) -> float:
    """Share of permutations at least as far from 0 as the estimate, which counts as one of them."""
    if not len(null):
        return np.nan
    # Sums in another order differ in the last bits: what is equal must count as equal.
    return float((1 + np.sum(np.abs(null) >= abs(estimate) - 1e-6)) / (1 + len(null)))


def _signs(a: Float, b: Float) -> Any:
    return (a[:, None] > b[None, :]).astype(np.float32) - (a[:, None] < b[None, :])


def _unit_ranks(v: Float) -> Float:
    """Mid-ranks along the first axis, centred and of length 1; NaN where all are tied."""
    centred = scipy.stats.rankdata(v, axis=0) - (len(v) + 1) / 2
    with np.errstate(invalid="ignore"):
        return centred / np.sqrt(np.square(centred).sum(axis=0))


def _ratio(over: Float, square: Float) -> Float:
    """over / sqrt(square), NaN where a replica is constant."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(square > 0, over / np.sqrt(square), np.nan)
