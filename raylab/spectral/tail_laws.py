"""Laws for the tail of a spectrum, fitted by maximum likelihood: what it may be if not a power law.

All work on y = x / xmin >= 1, so that nothing depends on the scale of the weights, and give the logarithm of the
density of y at every point. Each is the law of x given x >= xmin, as in powerlaw (Alstott et al., PLoS ONE 2014).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import erfcx, log_ndtr

from raylab.types import Array

# A lognormal cut this many of its deviations above its centre is a power law to within 1e-8 a point in likelihood.
FARTHEST_CUT = 100.0
NODES = 200  # of the quadrature: the normaliser of the truncated law to 1e-12
NEGLIGIBLE = 45.0  # e^-45 is nothing beside 1
SLOWEST = 1e-12  # of the exponential law's rate: an exponential cut-off that slow is none


class Law(NamedTuple):
    """A law with its parameters at the maximum of the likelihood."""

    parameters: tuple[float, ...]
    log_density: Array  # of y at every point


def power_law(y_logs: Array) -> Law:
    """y^-alpha."""
    alpha = 1 + 1 / float(y_logs.mean())
    return Law((alpha,), math.log(alpha - 1) - alpha * y_logs)


def exponential(y_logs: Array) -> Law:
    """e^(-rate (y - 1))."""
    excess = np.expm1(y_logs)
    rate = 1 / float(excess.mean())
    return Law((rate,), math.log(rate) - rate * excess)


def lognormal(y_logs: Array) -> Law:
    """ln y normal with (mu, sigma), given y >= 1.

    The power law is its limit for mu -> -infinity. Where the likelihood rises all the way there, which is where ln y is
    spread at least as wide as that of a power law, the power law is what is given, with mu = -infinity.
    """
    mean, variance = float(y_logs.mean()), float(y_logs.var())
    target = variance / mean**2
    if target >= _cut_normal(FARTHEST_CUT)[1]:
        return Law((-math.inf, math.inf), power_law(y_logs).log_density)
    # Cut that many deviations above its centre, the normal law has the sample's ratio of variance to mean squared.
    cut = _root(lambda h: _cut_normal(h)[1] - target, -2 / math.sqrt(target) - 10, FARTHEST_CUT)
    sigma = mean / _cut_normal(cut)[0]
    mu = -cut * sigma
    constant = math.log(sigma * math.sqrt(2 * math.pi)) + float(log_ndtr(-cut))
    return Law((mu, sigma), -y_logs - (y_logs - mu) ** 2 / (2 * sigma**2) - constant)


def truncated(y_logs: Array) -> Law:
    """y^-alpha e^(-rate y) with alpha >= 0 and rate >= 0: a power law with an exponential cut-off.

    Its logarithm is concave in (alpha, rate), so that the maximum is where the means of ln y and of y are those of the
    sample, or on the boundary: at rate 0, the power law, or at alpha 0, the exponential law.
    """
    excess = np.expm1(y_logs)
    mean_log, mean_excess = float(y_logs.mean()), float(excess.mean())
    steepest, fastest = 1 + 1 / mean_log, 1 / mean_excess

    def alpha_of(rate: float) -> float:
        return _root(lambda alpha: _moments(alpha, rate)[1] - mean_log, 0.0, 2 * steepest)

    def too_heavy(log_rate: float) -> float:
        rate = math.exp(log_rate)
        return math.log(_moments(alpha_of(rate), rate)[2] / mean_excess)

    slowest = math.log(fastest * SLOWEST)
    if _moments(0.0, fastest)[1] <= mean_log:
        alpha, rate = 0.0, fastest
    elif (steepest > 2 and 1 / (steepest - 2) <= mean_excess) or too_heavy(slowest) <= 0:
        return Law((steepest, 0.0), power_law(y_logs).log_density)
    else:
        rate = math.exp(_root(too_heavy, slowest, math.log(fastest)))
        alpha = alpha_of(rate)
    return Law((alpha, rate), -alpha * y_logs - rate * excess - _moments(alpha, rate)[0])


def _cut_normal(h: float) -> tuple[float, float]:
    """Of a standard normal law cut below h, measured from h: its mean, and variance over mean squared.

    erfcx is what keeps it exact for large h; both tend to those of an exponential law there.
    """
    mills = math.sqrt(2 / math.pi) / float(erfcx(h / math.sqrt(2)))
    mean = mills - h
    return mean, (1 - mills * mean) / mean**2


def _moments(alpha: float, rate: float) -> tuple[float, float, float]:
    """Of the density y^-alpha e^(-rate (y - 1)) on y >= 1: logarithm of its integral, means of ln y and of y - 1.

    The integral is e^rate E_alpha(rate) = e^rate rate^(alpha - 1) Gamma(1 - alpha, rate). Quadrature over v = ln y, up
    to where the density is negligible: it needs neither mpmath nor recurrences that lose digits.
    """
    nodes, weights = _quadrature()
    end = math.log1p((NEGLIGIBLE + (1 - alpha) ** 2) / rate) if alpha < 1 else math.log1p(NEGLIGIBLE / rate)
    if alpha > 1:
        end = min(end, NEGLIGIBLE / (alpha - 1))
    v = end * nodes
    excess = np.expm1(v)
    log_density = (1 - alpha) * v - rate * excess
    highest = float(log_density.max())
    density = weights * np.exp(log_density - highest)
    total = float(density.sum())
    return highest + math.log(end * total), float(density @ v) / total, float(density @ excess) / total


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    return float(root_scalar(f, bracket=(low, high), method="brentq", xtol=1e-13).root)


@functools.cache
def _quadrature() -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2
