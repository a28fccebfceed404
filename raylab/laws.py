"""The densities that spectra are fitted with: power law, Marchenko-Pastur law, quarter circle. numpy only.

One place for those who fit (raylab.spectral) and those who draw what was fitted (raylab.report).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def power_law(x: Array, alpha: float, xmin: float) -> Array:
    """Density (alpha - 1) / xmin * (x / xmin)^-alpha of x >= xmin > 0, alpha > 1; 0 below. Integrates to 1."""
    with np.errstate(divide="ignore"):
        density = (alpha - 1) / xmin * (x / xmin) ** -alpha
    return np.where(x >= xmin, density, 0.0)


def power_law_survival(x: Array, alpha: float, xmin: float) -> Array:
    """P(X >= x) = (x / xmin)^(1 - alpha) of the power law; 1 below xmin."""
    return (np.maximum(x, xmin) / xmin) ** (1 - alpha)


def marchenko_pastur_edges(sigma: Any, Q: float) -> tuple[Any, Any]:
    """Lower and upper edge sigma^2 (1 -+ 1/sqrt(Q))^2 of the law, Q = N / M >= 1."""
    inverse_root = 1 / math.sqrt(Q)
    return np.square(sigma * (1 - inverse_root)), np.square(sigma * (1 + inverse_root))


def marchenko_pastur(x: Array, sigma: Any, Q: float) -> Array:
    """Density of the eigenvalues of W^T W / N, W an N x M matrix of independent entries of variance sigma^2, Q = N / M.

    Integrates to 1 for Q >= 1. `sigma` may be an array: its shape then leads that of the answer.
    """
    return marchenko_pastur_between(x, marchenko_pastur_edges(np.asarray(sigma)[..., None], Q), sigma, Q)


def marchenko_pastur_between(x: Array, edges: tuple[Any, Any], sigma: Any, Q: float) -> Array:
    """The same where the edges are known already; theirs is the shape of sigma with an axis more, for x."""
    lower, upper = edges
    inside = (upper - x) * (x - lower)
    with np.errstate(divide="ignore", invalid="ignore"):
        law = np.sqrt(np.maximum(inside, 0.0)) * Q / (2 * math.pi * np.square(sigma)[..., None] * x)
    law[inside <= 0] = 0.0
    return law


def quarter_circle(x: Array) -> Array:
    """Density sqrt(4 - x^2) / pi, 0 <= x <= 2, of the singular values of a square W / sqrt(N) of unit variance."""
    return np.sqrt(np.maximum(4 - x**2, 0.0)) / math.pi


def quarter_circle_of_squares(x: Array) -> Array:
    """The same law for the eigenvalues x = s^2: sqrt(4 - x) / (2 pi sqrt(x)), infinite at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x >= 0, quarter_circle(np.sqrt(x)) / (2 * np.sqrt(x)), 0.0)
