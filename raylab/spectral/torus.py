"""The spectrum of a convolution as an operator on a torus (conv="fft"): complex matrices, one a frequency.

On a circular image a convolution is block diagonal in the Fourier basis (Sedghi, Gupta & Long 2019). A real kernel's
matrices at opposite frequencies are conjugate and have the same singular values, so that half of them are computed;
and not all at a time, for there are a thousand to a layer.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from raylab.layers import half_spectrum
from raylab.spectral.backend import ILL_CONDITIONED, resolve_device
from raylab.types import Array

CHUNK_BYTES = 1 << 27  # of complex matrices at a time


def torus_eigenvalues(slices: Array, kernel: tuple[int, ...], dtype: str = "float64", device: str = "auto") -> Array:
    """Squared singular values of the circular convolution of a kernel, those of all its frequencies, in no order.

    slices: (groups * elements of the kernel, rows, columns), as raylab.layers.kernel_slices gives them. Returns
    (groups * frequencies * min(rows, columns),) float64. NaN throughout where a weight is not finite.
    """
    waves, multiplicity = half_spectrum(kernel)
    elements, sides = waves.shape[1], slices.shape[1:]
    if not np.isfinite(slices).all():
        return np.full(len(slices) // elements * int(multiplicity.sum()) * min(sides), np.nan)
    blocks = np.asarray(slices, np.float64).reshape(-1, elements, sides[0] * sides[1])
    step = max(1, CHUNK_BYTES // (16 * max(1, blocks.shape[0] * blocks.shape[2])))
    pieces = []
    for i in range(0, len(waves), step):
        stack = (waves[i : i + step] @ blocks).reshape(-1, *sides)
        evals = complex_eigenvalues(stack, dtype, device).reshape(len(blocks), -1, min(sides))
        pieces.append(np.repeat(evals, multiplicity[i : i + step], axis=1).ravel())
    return np.concatenate(pieces)


def complex_eigenvalues(stack: Array, dtype: str = "float64", device: str = "auto") -> Array:
    """Ascending eigenvalues of the short-side Gram matrix of every complex matrix of a finite stack.

    stack: (count, rows, columns). Returns (count, min(rows, columns)) float64, never negative. dtype is that of the
    real and the imaginary part. As in `backend.eigenvalues`, the ill-conditioned are done again by SVD in float64.
    """
    tall = stack if stack.shape[1] >= stack.shape[2] else stack.transpose(0, 2, 1)
    evals = _hermitian(tall.astype({"float64": np.complex128, "float32": np.complex64}[dtype], copy=False), device)
    if dtype == "float64":
        poor = evals[:, 0] < ILL_CONDITIONED * evals[:, -1]
        evals[poor] = np.linalg.svd(tall[poor], compute_uv=False)[:, ::-1] ** 2
    return np.maximum(evals, 0.0)


def _hermitian(tall: Array, device: str) -> Array:
    """Ascending eigenvalues of tall^H tall, (count, columns) float64."""
    backend = resolve_device(device)
    if backend == "torch-cuda":
        torch: Any = importlib.import_module("torch")
        on_gpu = torch.from_numpy(np.ascontiguousarray(tall)).to("cuda")
        return torch.linalg.eigvalsh((on_gpu.mH @ on_gpu).to(torch.complex128)).cpu().numpy()
    if backend == "cupy":
        cupy: Any = importlib.import_module("cupy")
        on_gpu = cupy.asarray(np.ascontiguousarray(tall))
        gram = (on_gpu.conj().transpose(0, 2, 1) @ on_gpu).astype(cupy.complex128)
        return cupy.asnumpy(cupy.linalg.eigvalsh(gram))
    return np.linalg.eigvalsh(tall.conj().transpose(0, 2, 1) @ tall).astype(np.float64)
