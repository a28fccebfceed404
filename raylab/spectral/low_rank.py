"""The spectrum of a product B A of low rank, as of a LoRA adapter, without making the product."""

from __future__ import annotations

import numpy as np

from raylab.types import Array


def eigenvalues(B: Array, A: Array) -> Array:
    """Ascending eigenvalues of the short-side Gram matrix of B A, float64, padded with zeros to min(rows, columns).

    B: (rows, r), A: (r, columns). With B = Q_B R_B and A^T = Q_A R_A the singular values of B A are those of the r x r
    matrix R_B R_A^T, to full precision: nothing is squared before the SVD. NaN for every eigenvalue where a factor has
    a NaN or an infinity, as for a whole matrix.
    """
    B, A = np.asarray(B, np.float64), np.asarray(A, np.float64)
    if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0]:
        raise ValueError(f"factors of shapes {B.shape} and {A.shape} have no product")
    evals = np.zeros(min(B.shape[0], A.shape[1]))
    if not (np.isfinite(B).all() and np.isfinite(A).all()):
        evals[:] = np.nan
    elif B.size and A.size:
        core = _triangle(B) @ _triangle(A.T).T
        singular = np.linalg.svd(core, compute_uv=False)[: len(evals)]
        evals[len(evals) - len(singular) :] = singular[::-1] ** 2
    return evals


def _triangle(tall: Array) -> Array:
    """R of the QR decomposition."""
    return np.asarray(np.linalg.qr(tall, mode="r"))
