"""Fit of the Marchenko-Pastur law to the bulk of a spectrum, as weightwatcher 0.7.7 does it, a thousand times faster.

The spectrum is scaled to mean 1, its density estimated with a linear (triangular) kernel, and sigma of the law is found
by least squares: a scan of a grid, then a simplex descent from its best point. The original estimates the density anew
for every sigma; it does not depend on sigma, so here that is done once, and the grid is one array expression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raylab import laws
from raylab.types import Array

BANDWIDTH = 0.1
GRID_POINTS = 1000
LOWEST_DENSITY = 0.01  # where the estimate is lower, the fit does not look
TOLERANCE, MOST_STEPS = 1e-4, 200  # of the descent, in sigma and in the residual: the defaults of the original's
OUT_OF_RANGE = 1000.0  # residual at every point for a law whose edges do not fit the density

Objective = Callable[[Array], Array]  # sigmas (k,) -> sums of squared residuals (k,)


@dataclass(frozen=True, slots=True)
class MarchenkoPasturFit:
    """The bulk of a spectrum. `sigma` is in units where the mean eigenvalue is 1; `bulk_edge` in the spectrum's own."""

    softrank: float  # upper bulk edge over the largest eigenvalue
    sigma: float
    bulk_edge: float
    num_spikes: int  # eigenvalues beyond the edge and a Tracy-Widom width
    status: str  # "ok", or why there is no fit


def fit_bulk(evals: Array, N: int, M: int) -> MarchenkoPasturFit:
    """Fit ascending eigenvalues of an N x M layer (N >= M; several matrices may be pooled).

    A square matrix is fitted through its singular values by the quarter-circle law, whose width the original keeps
    fixed: only its height follows sigma. status: "ok", "non_finite", "too_few" (fewer than two), "zero" (all are zero),
    "constant", "no_fit".
    """
    status = _why_not(evals)
    if status:
        return _failed(status)
    scale = len(evals) / float(evals.sum())
    scaled = evals * scale
    inverse_root_Q = math.sqrt(M / N)
    sigma = _least_squares_sigma(scaled, N / M)
    if sigma is None:
        return _failed("no_fit")
    edge = (sigma * (1 + inverse_root_Q)) ** 2
    tracy_widom = inverse_root_Q * edge ** (2 / 3) * M ** (-2 / 3)
    return MarchenkoPasturFit(
        softrank=edge / float(scaled[-1]),
        sigma=sigma,
        bulk_edge=edge / scale,
        num_spikes=int(np.count_nonzero(scaled > edge + math.sqrt(tracy_widom))),
        status="ok",
    )


def _why_not(evals: Array) -> str:
    if not np.isfinite(evals).all():
        return "non_finite"
    if len(evals) < 2:
        return "too_few"
    if evals[-1] <= 0:
        return "zero"
    return "constant" if evals[-1] - evals[0] <= 1e-10 * evals[-1] else ""


def _failed(status: str) -> MarchenkoPasturFit:
    return MarchenkoPasturFit(softrank=math.nan, sigma=math.nan, bulk_edge=math.nan, num_spikes=0, status=status)


def _least_squares_sigma(scaled: Array, Q: float) -> float | None:
    """Grid from 0.05 to 2 times the sigma whose edge is the largest eigenvalue, then Nelder-Mead from its best."""
    x, density = _density(np.sqrt(scaled) if Q == 1 else scaled)
    if not len(x):
        return None
    objective = _quarter_circle(x, density) if Q == 1 else _marchenko_pastur(x, density, Q)
    unit = math.sqrt(float(scaled[-1]) / (1 + 1 / math.sqrt(Q)) ** 2)
    grid = np.mgrid[0.05 * unit : 2.0 * unit : 0.01 * unit]
    residuals = objective(grid)
    start = grid[np.argmin(residuals)]
    if residuals.min() >= len(x) * OUT_OF_RANGE**2:
        return None
    return abs(_descend(lambda sigma: float(objective(np.array([sigma]))[0]), float(start)))


def _descend(objective: Callable[[float], float], start: float) -> float:
    """The simplex descent of Nelder and Mead in one dimension, step by step that of `scipy.optimize.fmin`.

    A simplex is two points there, so that every new point is a multiple of the best one and the worst.
    """
    best, worst = start, 1.05 * start if start else 0.00025
    at_best, at_worst = objective(best), objective(worst)
    for _ in range(MOST_STEPS):
        if at_worst < at_best:
            best, worst, at_best, at_worst = worst, best, at_worst, at_best
        if abs(worst - best) <= TOLERANCE and abs(at_worst - at_best) <= TOLERANCE:
            break
        point, at_point = _next_point(objective, best, worst, at_best, at_worst)
        worst, at_worst = point, at_point
    return best


def _next_point(
    objective: Callable[[float], float], best: float, worst: float, at_best: float, at_worst: float
) -> tuple[float, float]:
    """What takes the place of the worst point: its reflection, twice that, or half the way in or out."""
    reflected = 2 * best - worst
    at_reflected = objective(reflected)
    if at_reflected < at_best:
        expanded = 3 * best - 2 * worst
        at_expanded = objective(expanded)
        return (expanded, at_expanded) if at_expanded < at_reflected else (reflected, at_reflected)
    outside = at_reflected < at_worst
    contracted = 1.5 * best - 0.5 * worst if outside else 0.5 * best + 0.5 * worst
    at_contracted = objective(contracted)
    if at_contracted <= at_reflected if outside else at_contracted < at_worst:
        return contracted, at_contracted
    shrunk = best + 0.5 * (worst - best)
    return shrunk, objective(shrunk)


def _density(values: Array) -> tuple[Array, Array]:
    """Linear-kernel density of ascending values on an even grid, where it is not almost zero."""
    x = np.linspace(0, values[-1] + 0.5, GRID_POINTS)
    density = (_ramp(values, x + BANDWIDTH) - 2 * _ramp(values, x) + _ramp(values, x - BANDWIDTH)) / (
        len(values) * BANDWIDTH**2
    )
    good = density > LOWEST_DENSITY
    return x[good], density[good]


def _ramp(values: Array, x: Array) -> Array:
    """Sum over values of max(0, x - value); the triangular kernel is its second difference."""
    count = np.searchsorted(values, x)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return count * x - sums[count]


def _quarter_circle(x: Array, density: Array) -> Objective:
    shape = laws.quarter_circle(x)
    quadratic, linear, constant = float(shape @ shape), float(shape @ density), float(density @ density)

    def objective(sigma: Array) -> Array:
        height = 1 / np.square(sigma)
        return (quadratic * height - 2 * linear) * height + constant

    return objective


def _marchenko_pastur(x: Array, density: Array, Q: float) -> Objective:
    peak, end = x[np.argmax(density)], x[-1]
    out_of_range = len(x) * OUT_OF_RANGE**2

    def objective(sigma: Array) -> Array:
        lower, upper = laws.marchenko_pastur_edges(sigma, Q)
        law = laws.marchenko_pastur_between(x, (lower[:, None], upper[:, None]), sigma, Q)
        residuals = np.square(law - density).sum(axis=1)
        return np.where((upper < peak) | (upper > end) | (lower > peak), out_of_range, residuals)

    return objective
