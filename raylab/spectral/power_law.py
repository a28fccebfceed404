"""The power law rho(lambda) ~ lambda^-alpha of a spectrum's tail.

The default estimator is that of Clauset, Shalizi & Newman (SIAM Review 51, 2009) with the conventions of weightwatcher
0.7.7: for every candidate xmin the maximum-likelihood alpha of the points at and above it, then the candidate whose
Kolmogorov-Smirnov distance D is least. The scan is exact, though most candidates are dropped after a look at a few
points of their tail, which bound D from below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from raylab.errors import UserError
from raylab.registry import Registry
from raylab.types import Array, PowerLawFit, SpectralOptions, Spectrum

SMALL_SAMPLE = 20  # below this many points weightwatcher 0.7.7 changes its rule
SMALL_TAIL = 8  # the shortest tail of that rule
PROBES = (8, 32, 128)  # points of each tail that bound D from below, stage by stage
# A tail whose logarithms sum to less above its start consists of ties up to rounding: alpha would be 1e12 or infinite.
NO_SPREAD = 1e-12
ROUNDING = 1e-12  # slack of the lower bounds, so that no candidate is dropped by a rounding error

NAN = math.nan
Tail = tuple[float, float, int]  # alpha, D, index of xmin among the sorted points
# (points above the threshold, how many eigenvalues are not above it, options) -> the tail, or None where there is none
Estimator = Callable[[Array, int, SpectralOptions], Tail | None]

ESTIMATORS: Registry[Estimator] = Registry("estimator")
_fits: WeakKeyDictionary[Spectrum, PowerLawFit] = WeakKeyDictionary()


def fit(spectrum: Spectrum) -> PowerLawFit:
    """The fit of a spectrum by its own options, computed once however many metrics ask for it."""
    if spectrum not in _fits:
        _fits[spectrum] = fit_evals(spectrum.evals, spectrum.options)
    return _fits[spectrum]


def fit_evals(evals: Array, options: SpectralOptions | None = None) -> PowerLawFit:
    """Fit ascending eigenvalues. Never raises for bad numbers: `status` says why there is no fit, and the rest is NaN.

    status: "ok"; "non_finite" (NaN or infinite eigenvalues); "too_few" (fewer than two above the threshold);
    "constant" (all equal, as for an orthogonal matrix); "no_tail" (no candidate has a spread-out tail).
    Raises UserError for an unknown estimator, small_sample or threshold_kind.
    """
    options = options or SpectralOptions()
    estimate = ESTIMATORS.resolve(options.estimator)
    if not np.isfinite(evals).all():
        return _failed("non_finite")
    points = evals[evals > threshold(evals, options)]
    if len(points) < 2:
        return _failed("too_few")
    if points[-1] - points[0] <= 1e-10 * points[-1]:
        return _failed("constant")
    tail = estimate(points, len(evals) - len(points), options)
    return _failed("no_tail") if tail is None else _fit_of(tail, points)


def threshold(evals: Array, options: SpectralOptions) -> float:
    """The value that eigenvalues must exceed to enter a fit. Never negative."""
    if options.threshold_kind == "absolute":
        return max(options.threshold, 0.0)
    if options.threshold_kind == "relative":
        return max(options.threshold, 0.0) * float(evals.max(initial=0.0))
    raise UserError(f"threshold_kind must be absolute or relative, not '{options.threshold_kind}'.")


@ESTIMATORS.register("ks")
def ks(points: Array, below: int, options: SpectralOptions) -> Tail | None:
    """The candidate with the least KS distance; every point but the last is one."""
    if options.small_sample not in ("oracle", "standard"):
        raise UserError(f"small_sample must be oracle or standard, not '{options.small_sample}'.")
    if len(points) < SMALL_SAMPLE and options.small_sample == "oracle":
        return _ks_small(points)
    logs = _centered_logs(points)
    return _least_distance(logs, _alphas(logs))


@ESTIMATORS.register("median")
def median(points: Array, below: int, options: SpectralOptions) -> Tail | None:
    """Hill's estimator with xmin at the median of all eigenvalues: alpha as TempBalance (2023) defines it."""
    logs = _centered_logs(points)
    start = max((len(points) + below) // 2 - below, 0)
    alpha = _alphas(logs)[start] if start < len(points) - 1 else math.inf
    return (float(alpha), _distance(logs, start, alpha), start) if math.isfinite(alpha) else None


@ESTIMATORS.register("xmin_peak")
def xmin_peak(points: Array, below: int, options: SpectralOptions) -> Tail | None:
    """The least KS distance among xmin near the peak of the histogram of log10 lambda (weightwatcher's fix_fingers).

    The candidates lie between log10(0.95 peak) and 1.5 peak. That the lower end is a logarithm is the original's slip,
    kept for parity: it is seldom in force.
    """
    counts, edges = np.histogram(np.log10(points), bins=100)
    peak = 10 ** edges[np.argmax(counts)]
    logs = _centered_logs(points)
    near = (points[:-1] >= math.log10(0.95 * peak)) & (points[:-1] <= 1.5 * peak)
    return _least_distance(logs, np.where(near, _alphas(logs), math.inf))


def _centered_logs(points: Array) -> Array:
    """ln(x / xmax): sums from the largest down then start small, which keeps rounding errors small."""
    logs = np.log(points)
    return logs - logs[-1]


def _alphas(logs: Array, bias: int = 0) -> Array:
    """Maximum-likelihood alpha of the tail that starts at each point but the last: 1 + (n - bias) / sum ln(x_j / x_i).

    Infinite where the tail consists of ties.
    """
    n = np.arange(len(logs), 1, -1.0)
    spread = np.cumsum(logs[::-1])[:0:-1] - n * logs[:-1]
    tied = spread <= NO_SPREAD
    return np.where(tied, math.inf, 1 + (n - bias) / np.where(tied, 1.0, spread))


def _distance(logs: Array, start: int, alpha: float) -> float:
    """KS distance of one tail from the lower edge of the empirical steps: max |1 - (x_j/x_i)^(1-alpha) - (j-i)/n|."""
    n = len(logs) - start
    difference = np.exp((logs[start:] - logs[start]) * (1 - alpha))
    difference += np.arange(n) / n
    difference -= 1
    return float(max(difference.max(), -difference.min()))


def _least_distance(logs: Array, alphas: Array) -> Tail | None:
    """The candidate of least D, the first of equals, among those with finite alpha."""
    candidates = np.flatnonzero(np.isfinite(alphas))
    exact: dict[int, float] = {}
    best = math.inf
    bounds = np.zeros(len(candidates))
    for probes in PROBES:
        if len(candidates) <= probes // 2:
            break
        bounds = _lower_bounds(logs, alphas, candidates, probes)
        promising = int(candidates[np.argmin(bounds)])
        exact[promising] = _distance(logs, promising, alphas[promising])
        best = min(best, exact[promising])
        keep = bounds <= best + ROUNDING
        candidates, bounds = candidates[keep], bounds[keep]
    for i, bound in sorted(zip(candidates.tolist(), bounds.tolist(), strict=True), key=lambda pair: pair[1]):
        if bound <= best + ROUNDING and i not in exact:
            exact[i] = _distance(logs, i, alphas[i])
            best = min(best, exact[i])
    if not exact:
        return None
    start = min(i for i, D in exact.items() if best == D)
    return float(alphas[start]), best, start


def _lower_bounds(logs: Array, alphas: Array, candidates: Array, probes: int) -> Array:
    """For each candidate the largest distance at `probes` points spread evenly over its tail."""
    start = candidates[:, None]
    last = len(logs) - 1 - start
    offset = np.rint(np.linspace(0, 1, probes + 1)[1:] * last).astype(np.intp)
    difference = np.exp((logs[start + offset] - logs[start]) * (1 - alphas[start]))
    difference += offset / (last + 1)
    difference -= 1
    return np.maximum(difference.max(axis=1), -difference.min(axis=1))


def _ks_small(points: Array) -> Tail | None:
    """weightwatcher 0.7.7 below 20 points: alpha corrected for bias, tails of at least 8, the whole sample if shorter.

    (Its additional objective, D - 0.868/sqrt(n), is computed there and then overwritten by the least D.)
    """
    logs = _centered_logs(points)
    alphas = _alphas(logs, bias=1)
    long_enough = max(len(points) - SMALL_TAIL + 1, 0)
    alphas[max(long_enough, 1) :] = math.inf
    return _least_distance(logs, alphas)


def _fit_of(tail: Tail, points: Array) -> PowerLawFit:
    alpha, D, start = tail
    return PowerLawFit(
        alpha=alpha,
        xmin=float(points[start]),
        xmax=float(points[-1]),
        D=D,
        sigma=(alpha - 1) / math.sqrt(len(points) - start),
        num_tail=int(np.count_nonzero(points >= points[start])),
        status="ok",
    )


def _failed(status: str) -> PowerLawFit:
    return PowerLawFit(alpha=NAN, xmin=NAN, xmax=NAN, D=NAN, sigma=NAN, num_tail=0, status=status)
