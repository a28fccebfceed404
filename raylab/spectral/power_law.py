"""The power law rho(lambda) ~ lambda^-alpha of a spectrum's tail.

The default estimator is that of Clauset, Shalizi & Newman (SIAM Review 51, 2009) with the conventions of weightwatcher
0.7.7: for every candidate xmin the maximum-likelihood alpha of the points at and above it, then the candidate whose
Kolmogorov-Smirnov distance D is least (`scan.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from raylab.errors import UserError
from raylab.registry import Registry
from raylab.spectral.farms import window_evals
from raylab.spectral.scan import Tail, centered_logs, distance, least_distance, tail_alphas
from raylab.types import Array, PowerLawFit, SpectralOptions, Spectrum

SMALL_SAMPLE = 20  # below this many points weightwatcher 0.7.7 changes its rule
SMALL_TAIL = 8  # the shortest tail of that rule

# What `status` means, for a person.
WHY_NO_FIT = {
    "non_finite": "a weight is not finite",
    "too_few": "fewer than two eigenvalues above the threshold",
    "constant": "all eigenvalues are equal",
    "no_tail": "no tail is spread out",
}
NAN = math.nan
# (points above the threshold, how many eigenvalues are not above it, options) -> the tail, or None where there is none
Estimator = Callable[[Array, int, SpectralOptions], Tail | None]

ESTIMATORS: Registry[Estimator] = Registry("estimator")
_fits: WeakKeyDictionary[Spectrum, PowerLawFit] = WeakKeyDictionary()
_windows: WeakKeyDictionary[Spectrum, Array] = WeakKeyDictionary()


def fit(spectrum: Spectrum) -> PowerLawFit:
    """The fit of a spectrum by its own options, computed once however many metrics ask for it."""
    if spectrum not in _fits:
        _fits[spectrum] = fit_evals(fitted_evals(spectrum), spectrum.options)
    return _fits[spectrum]


def fitted_evals(spectrum: Spectrum) -> Array:
    """The ascending eigenvalues behind alpha: those of W, or (estimator="farms") those of its windows, pooled.

    Raises ValueError where windows are asked for and the spectrum came without its matrices.
    """
    if spectrum.options.estimator != "farms":
        return spectrum.evals
    if spectrum.matrices is None:
        raise ValueError("estimator=farms needs the matrices of the spectrum")
    if spectrum not in _windows:
        _windows[spectrum] = window_evals(spectrum.matrices, spectrum.options)
    return _windows[spectrum]


def fit_evals(evals: Array, options: SpectralOptions | None = None) -> PowerLawFit:
    """Fit ascending eigenvalues. Never raises for bad numbers: `status` says why there is no fit, and the rest is NaN.

    status: "ok"; "non_finite" (NaN or infinite eigenvalues); "too_few" (fewer than two above the threshold);
    "constant" (all equal, as for an orthogonal matrix); "no_tail" (no candidate has a spread-out tail).
    Raises UserError for an unknown estimator, small_sample or threshold_kind.
    """
    options = options or SpectralOptions()
    ESTIMATORS.resolve(options.estimator)
    if not np.isfinite(evals).all():
        return _failed("non_finite")
    points = evals[evals > threshold(evals, options)]
    return fit_points(points, len(evals) - len(points), options)


def fit_points(points: Array, below: int, options: SpectralOptions) -> PowerLawFit:
    """`fit_evals` of the ascending points above the threshold alone, and how many more eigenvalues are not above it."""
    if len(points) < 2:
        return _failed("too_few")
    if points[-1] - points[0] <= 1e-10 * points[-1]:
        return _failed("constant")
    tail = ESTIMATORS.resolve(options.estimator)(points, below, options)
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
    logs = centered_logs(points)
    return least_distance(logs, tail_alphas(logs))


@ESTIMATORS.register("median")
def median(points: Array, below: int, options: SpectralOptions) -> Tail | None:
    """Hill's estimator with xmin at the median of all eigenvalues: alpha as TempBalance (2023) defines it.

    There (pl_fitting="median", xmin_pos=2, filter_zeros=False) eigenvalues at or below the threshold take part too, so
    that a median of zero makes alpha NaN; here xmin is then the least eigenvalue above the threshold.
    """
    logs = centered_logs(points)
    start = max((len(points) + below) // 2 - below, 0)
    alpha = tail_alphas(logs)[start] if start < len(points) - 1 else math.inf
    return (float(alpha), distance(logs, start, alpha)[0], start) if math.isfinite(alpha) else None


# The same on the pooled eigenvalues of windows, which `fitted_evals` provides: Hu et al. (ICML 2025) fit them so.
ESTIMATORS.register("farms")(median)


@ESTIMATORS.register("xmin_peak")
def xmin_peak(points: Array, below: int, options: SpectralOptions) -> Tail | None:
    """The least KS distance among xmin near the peak of the histogram of log10 lambda (weightwatcher's fix_fingers).

    The candidates lie between log10(0.95 peak) and 1.5 peak. That the lower end is a logarithm is the original's slip,
    kept for parity: it is seldom in force.
    """
    counts, edges = np.histogram(np.log10(points), bins=100)
    peak = 10 ** edges[np.argmax(counts)]
    logs = centered_logs(points)
    near = (points[:-1] >= math.log10(0.95 * peak)) & (points[:-1] <= 1.5 * peak)
    return least_distance(logs, np.where(near, tail_alphas(logs), math.inf))


def _ks_small(points: Array) -> Tail | None:
    """weightwatcher 0.7.7 below 20 points: alpha corrected for bias, tails of at least 8, the whole sample if shorter.

    (Its additional objective, D - 0.868/sqrt(n), is computed there and then overwritten by the least D.)
    """
    logs = centered_logs(points)
    alphas = tail_alphas(logs, bias=1)
    long_enough = max(len(points) - SMALL_TAIL + 1, 0)
    alphas[max(long_enough, 1) :] = math.inf
    return least_distance(logs, alphas)


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
