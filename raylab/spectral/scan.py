"""The scan for xmin: the maximum-likelihood alpha of every tail, and the tail of least Kolmogorov-Smirnov distance D.

It is exact, though it does not visit every point of every tail. The point at which a tail lies farthest from its power
law is about the point at which its neighbours do. So the most promising candidate is evaluated in full, a look at its
two worst points (one exponential for each other candidate) bounds the D of the others from below, and those that
cannot win any more are dropped: two to twenty rounds, where the definition asks for thousands.

`least_distance` scans one sample. `least_distances` scans the rows of a 2-D array together; its array module is an
argument, numpy or CuPy. On a CPU the rows one by one are as fast: the batch is for a GPU.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from raylab.types import Array

Tail = tuple[float, float, int]  # alpha, D, index of xmin among the sorted points

PROBES = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)  # where in its tail every candidate is looked at first
# A tail whose logarithms sum to less above its start consists of ties up to rounding: alpha would be 1e12 or infinite.
NO_SPREAD = 1e-12
ROUNDING = 1e-12  # slack of the lower bounds, so that no candidate is dropped by a rounding error
# Rows times points scanned together: what fits a core's cache, or fills a GPU.
CPU_ENTRIES, GPU_ENTRIES = 1 << 15, 1 << 23


class Tails(NamedTuple):
    """The chosen tail of every row: NaN, NaN and n where no candidate of a row of n points has a spread-out tail."""

    alpha: Array
    D: Array
    start: Array  # index of xmin among the sorted points


def centered_logs(points: Array, xp: Any = np) -> Array:
    """ln(x / xmax), (..., n): sums from the largest down then start small, which keeps rounding errors small."""
    logs = xp.log(points)
    return logs - logs[..., -1:]


def tail_alphas(logs: Array, bias: int = 0, xp: Any = np) -> Array:
    """Maximum-likelihood alpha of the tail that starts at each point but the last: 1 + (n - bias) / sum ln(x_j / x_i).

    logs: (..., n); the result, (..., n - 1), is infinite where the tail consists of ties.
    """
    n = xp.arange(logs.shape[-1], 1, -1.0)
    spread = xp.cumsum(logs[..., ::-1], axis=-1)[..., :0:-1] - n * logs[..., :-1]
    tied = spread <= NO_SPREAD
    return xp.where(tied, math.inf, 1 + (n - bias) / xp.where(tied, 1.0, spread))


def distance(logs: Array, start: int, alpha: float) -> tuple[float, int, int]:
    """KS distance of one tail from the lower edge of the empirical steps: max |1 - (x_j/x_i)^(1-alpha) - (j-i)/n|.

    With it the two points where the tail lies farthest above and below its power law.
    """
    n = len(logs) - start
    difference = np.exp((logs[start:] - logs[start]) * (1 - alpha))
    difference += np.arange(n) / n
    difference -= 1
    above, below = int(difference.argmax()), int(difference.argmin())
    return float(max(difference[above], -difference[below])), start + above, start + below


def least_distance(logs: Array, alphas: Array) -> Tail | None:
    """The candidate of least D, the first of equals, among those with finite alpha. None where there is none.

    logs: (n,) as `centered_logs` gives them; alphas: (n - 1,).
    """
    first = np.flatnonzero(np.isfinite(alphas))
    tails = (first, logs[first], 1 - alphas[first], len(logs) - first)
    bounds = _distance_at(first + _offsets(tails[3]), logs, *tails)
    best, start = math.inf, len(logs)
    while len(first):
        k = int(bounds.argmin())
        D, above, below = distance(logs, int(first[k]), float(alphas[first[k]]))
        best, start = min((best, start), (D, int(first[k])))
        bounds[k] = math.inf
        np.maximum(bounds, _distance_at(np.array([[above], [below]]), logs, *tails), out=bounds)
        keep = bounds <= best + ROUNDING
        first, bounds = first[keep], bounds[keep]
        tails = (first, *(column[keep] for column in tails[1:]))
    return (float(alphas[start]), best, start) if start < len(logs) else None


def least_distances(logs: Array, alphas: Array, xp: Any = np) -> Tails:
    """`least_distance` for many samples of one length. logs: (rows, n), alphas: (rows, n - 1), both arrays of `xp`."""
    rows, n = logs.shape
    step = max((CPU_ENTRIES if xp is np else GPU_ENTRIES) // n, 1)
    parts = [_least_distances(logs[i : i + step], alphas[i : i + step], xp) for i in range(0, rows, step)]
    return Tails(*(xp.concatenate(column) for column in zip(*parts, strict=True)))


def _least_distances(logs: Array, alphas: Array, xp: Any) -> Tails:
    rows, n = logs.shape
    every = xp.arange(rows)
    best, start = xp.full(rows, math.inf), xp.full(rows, n)
    row, first = xp.nonzero(xp.isfinite(alphas))
    tails = (first, logs[row, first], 1 - alphas[row, first], n - first)
    bound = _distance_at(first + _offsets(tails[3], xp), logs, *tails, row, xp)
    bounds = xp.full((rows, n), math.inf)
    while len(row):
        bounds[row, first] = bound
        chosen = bounds.argmin(axis=1)
        todo = xp.flatnonzero(bounds[every, chosen] < math.inf)
        i = chosen[todo]
        D, worst = _distances(logs[todo], i, alphas[todo, i], xp)
        better = (best[todo] > D) | ((best[todo] == D) & (i < start[todo]))
        best[todo[better]], start[todo[better]] = D[better], i[better]
        at = xp.zeros((2, rows), dtype=first.dtype)
        at[:, todo] = worst
        bound = xp.maximum(bound, _distance_at(at[:, row], logs, *tails, row, xp))
        keep = (bound <= best[row] + ROUNDING) & (first != chosen[row])
        bounds[row, first] = math.inf
        row, first, bound = row[keep], first[keep], bound[keep]
        tails = (first, *(column[keep] for column in tails[1:]))
    found = start < n
    alpha = xp.where(found, alphas[every, xp.where(found, start, 0)], math.nan)
    return Tails(alpha, xp.where(found, best, math.nan), start)


def _offsets(size: Array, xp: Any = np) -> Array:
    return xp.rint(xp.asarray(PROBES)[:, None] * (size - 1)).astype(size.dtype)


def _distance_at(
    at: Array, logs: Array, first: Array, log: Array, slope: Array, size: Array, row: Any = None, xp: Any = np
) -> Array:
    """The largest distance of each candidate tail over some points of it, (points, tails): a lower bound of its D.

    Points before a tail count for nothing. `row` tells to which row of `logs` a tail belongs, where there are rows.
    """
    offset = at - first
    there = logs[at] if row is None else logs[row, at]
    difference = xp.exp(xp.minimum((there - log) * slope, 0.0))
    difference += offset / size
    difference -= 1
    return xp.where(offset > 0, xp.abs(difference), 0.0).max(axis=0)


def _distances(logs: Array, start: Array, alpha: Array, xp: Any) -> tuple[Array, Array]:
    """`distance` of one tail of each row, and the two points of each, (2, rows)."""
    n, rows = logs.shape[1], xp.arange(len(logs))
    offset = xp.arange(n) - start[:, None]
    difference = xp.exp(xp.minimum((logs - logs[rows, start][:, None]) * (1 - alpha)[:, None], 0.0))
    difference += offset / (n - start)[:, None]
    difference -= 1
    difference[offset < 0] = 0.0
    above, below = difference.argmax(axis=1), difference.argmin(axis=1)
    return xp.maximum(difference[rows, above], -difference[rows, below]), xp.stack([above, below])
