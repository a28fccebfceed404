"""Back to orthonormal columns: what a step of gradient descent leaves is moved to the set of orthonormal matrices.

A retraction is a function of one float32 tensor Q (n, r), r <= n, whose columns are nearly orthonormal, that gives an
orthonormal one of the same shape near it. Absil, Mahony & Sepulchre, "Optimization Algorithms on Matrix Manifolds",
Section 4.1, has polar and QR; the Newton-Schulz iteration for the polar factor is Higham, "Functions of Matrices", 8.3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raylab.models.kernels import affine
from raylab.registry import Registry
from raylab.types import RetractionOptions

if TYPE_CHECKING:
    from torch import Tensor

Float64 = NDArray[np.float64]
Retraction = Callable[["Tensor"], "Tensor"]
# Frobenius norm of Q^T Q - I up to which an iteration surely finds the polar factor: squared singular values of Q are
# in [1/2, 3/2]. Small entries alone do not say so: one singular value above 1.73 goes elsewhere, or never ends.
NEAR = 0.5


@dataclass(frozen=True)
class OnceAnEpoch:
    """No retraction: W is trained as it is, and this is what becomes of it at the end of each epoch.

    restore: (W (out, in), S (r,) its singular values before training, descending), all float64, to the new W.
    """

    restore: Callable[[Float64, Float64], Float64]


RETRACTIONS: Registry[Retraction | OnceAnEpoch] = Registry("retraction")


def retraction_of(name: str, options: RetractionOptions) -> Retraction | OnceAnEpoch:
    """The retraction of that name, with its options. Raises UserError for a name that is not there."""
    if name == "newton_schulz":
        return functools.partial(newton_schulz, iterations=options.iterations)
    return RETRACTIONS.resolve(name)


def newton_schulz(q: Tensor, iterations: int = 2) -> Tensor:
    """Towards the polar factor by Q (3 I - Q^T Q) / 2: an error of e becomes one of 3/4 e^2. Products only."""
    for _ in range(iterations):
        q = 1.5 * q - affine(q, affine(q.mT, q.mT), None).mul_(0.5)
    return q


def polar(q: Tensor) -> Tensor:
    """The polar factor Q (Q^T Q)^(-1/2), the orthonormal matrix nearest to Q.

    By eigenvalues in float64: torch's SVD in float32 now and then does not converge where all singular values are
    nearly one, which here is always.
    """
    import torch

    exact = q.double()
    squares, vectors = torch.linalg.eigh(exact.mT @ exact)
    return (exact @ ((vectors * squares.rsqrt()) @ vectors.mT)).to(q.dtype)


def qr(q: Tensor) -> Tensor:
    """The Q of the QR decomposition whose R has a positive diagonal: columns one after another (Gram-Schmidt)."""
    import torch

    found, r = torch.linalg.qr(q)
    return found * torch.where(r.diagonal() < 0, -1.0, 1.0)


def project(w: Float64, spectrum: Float64) -> Float64:
    """W with another spectrum: the nearest matrix that has these singular values (Mirsky)."""
    left, _, right = np.linalg.svd(w, full_matrices=False)
    return (left * spectrum) @ right


def _as_it_is(w: Float64, spectrum: Float64) -> Float64:
    return w


RETRACTIONS.register("newton_schulz")(newton_schulz)
RETRACTIONS.register("polar")(polar)
RETRACTIONS.register("qr")(qr)
RETRACTIONS.register("svd_projection")(OnceAnEpoch(project))
RETRACTIONS.register("free")(OnceAnEpoch(_as_it_is))


def polished(q: Float64) -> tuple[Float64, float]:
    """The polar factor of Q (n, r) to the rounding of float64, and how far Q was from it: max |Q^T Q - I|."""
    gram = q.T @ q
    off = _off(gram)
    if not np.linalg.norm(gram - np.eye(len(gram))) <= NEAR:
        left, _, right = np.linalg.svd(q, full_matrices=False)
        return left @ right, off
    error = off
    while True:
        q = 1.5 * q - 0.5 * (q @ gram)
        if error < 1e-9:  # squared by the step that has just been made
            return q, off
        gram = q.T @ q
        error = _off(gram)


def _off(gram: Float64) -> float:
    return float(np.abs(gram - np.eye(len(gram))).max())
