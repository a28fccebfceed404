"""Eigenvalues of W^T W on a CPU (LAPACK) or a GPU (torch or CuPy), a stack of equal-shaped matrices at a time.

One mid-size matrix leaves a GPU idle, so everything here takes a stack. The Gram matrix of the short side is cheaper
than an SVD of W by 2 to 5 times; it loses singular values below 1e-8 of the largest, so an ill-conditioned matrix is
done again, with its zero rows and columns stripped and by SVD.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.registry import suggest
from raylab.spectral import lapack
from raylab.types import Array

DEVICES = ("auto", "cpu", "numpy", "cuda", "torch-cuda", "cupy")
GPUS = ("torch-cuda", "cupy")  # of the backends behind them
ILL_CONDITIONED = 1e-11  # smallest over largest eigenvalue, below which the float64 Gram route is not trusted
STACK_BYTES = 1 << 30  # of float64 weights in one GPU call; CuPy's workspace is indexed with 32 bits
CUPY_BATCHED_UP_TO = 256  # CuPy's batched solver is Jacobi's: on an H100 3x sooner here, level at 512, less exact above
MKL_FROM = {"GenuineIntel": 1100}  # by CPU maker: where MKL (which torch brings) beats OpenBLAS. On AMD it never does

Solver = Callable[[Sequence[Array], str], list[Array]]  # (tall matrices, dtype) -> ascending eigenvalues of each


def eigenvalues(stack: Array, dtype: str = "float64", device: str = "auto") -> Array:
    """`eigenvalues_of` the matrices of a stack: (count, min(rows, columns)) from (count, rows, columns)."""
    return np.array(eigenvalues_of(list(stack), dtype, device)).reshape(len(stack), min(stack.shape[1:]))


def eigenvalues_of(matrices: Sequence[Array], dtype: str = "float64", device: str = "auto") -> list[Array]:
    """Ascending eigenvalues of the short-side Gram matrix of each matrix, all of them together.

    matrices: each (rows, columns), finite or not. Returns arrays of min(rows, columns) float64, never negative; a
    matrix with a NaN or an infinity has NaN for every eigenvalue. dtype is that of the Gram matrix and the eigensolver:
    in float32 nothing is done again. Raises UserError for an unknown or absent device.
    """
    if dtype not in ("float32", "float64"):
        raise UserError(f"Unknown dtype '{dtype}'.{suggest(dtype, ('float32', 'float64'))}")
    solve = _solver(device)
    full = [i for i, matrix in enumerate(matrices) if matrix.size]
    evals = [np.zeros(min(matrix.shape)) for matrix in matrices]
    for i, found in zip(full, solve([_tall(matrices[i]) for i in full], dtype), strict=True):
        poor = dtype == "float64" and found[0] < ILL_CONDITIONED * found[-1]
        evals[i] = np.maximum(_carefully(matrices[i]) if poor else found, 0.0)
    return evals


def available(device: str) -> bool:
    """Whether "cpu", "numpy", "torch-cuda" or "cupy" can be used here."""
    if device in ("cpu", "numpy"):
        return True
    if not _driver_present():  # asked first, so that a machine without a GPU imports neither
        return False
    return {"torch-cuda": _torch_sees_gpu, "cupy": _cupy_sees_gpu}[device]()


@functools.cache
def resolve_device(device: str) -> str:
    """The backend behind a device of the options: "cpu", "numpy", "torch-cuda" or "cupy".

    CuPy is preferred on a GPU. "numpy" is slower than "cpu", but nothing else is imported for it.
    """
    if device not in DEVICES:
        raise UserError(f"Unknown device '{device}'.{suggest(device, DEVICES)}")
    if device in ("torch-cuda", "cupy") and not available(device):
        raise UserError(f"device={device} is asked for, but no CUDA GPU is visible to {device.partition('-')[0]} here.")
    if device not in ("auto", "cuda"):
        return device
    backend = next((name for name in ("cupy", "torch-cuda") if available(name)), "cpu")
    if device == "cuda" and backend == "cpu":
        raise UserError("device=cuda is asked for, but neither CuPy nor torch sees a GPU here: use device=cpu.")
    return backend


def load(device: str, largest: int) -> None:
    """Load the libraries that a device needs for matrices of at most so many columns, before they are limited."""
    if resolve_device(device) == "cpu":
        lapack.load()
        if largest >= _mkl_from():
            importlib.import_module("torch")


def _solver(device: str) -> Solver:
    solvers = {"cpu": _cpu, "numpy": _numpy, "torch-cuda": _by_shape(_torch_cuda), "cupy": _by_shape(_cupy)}
    return solvers[resolve_device(device)]


def _tall(matrix: Array) -> Array:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _cpu(matrices: Sequence[Array], dtype: str) -> list[Array]:
    """By numba's lanes where LAPACK is not better; MKL on the processors that it is made for."""
    large = {i for i, matrix in enumerate(matrices) if matrix.shape[1] >= _mkl_from()}
    others = iter(lapack.eigenvalues([matrix for i, matrix in enumerate(matrices) if i not in large], dtype))
    return [_mkl(lapack.gram(matrix, dtype)) if i in large else next(others) for i, matrix in enumerate(matrices)]


def _numpy(matrices: Sequence[Array], dtype: str) -> list[Array]:
    return [_by_numpy(np.asarray(matrix, dtype)) for matrix in matrices]


def _by_numpy(tall: Array) -> Array:
    gram = tall.T @ tall
    return np.linalg.eigvalsh(gram).astype(np.float64) if lapack.is_finite(gram) else np.full(len(gram), np.nan)


def _mkl(gram: Array) -> Array:
    import torch

    if not lapack.is_finite(gram):
        return np.full(len(gram), np.nan)
    return torch.linalg.eigvalsh(torch.from_numpy(gram)).numpy().astype(np.float64)


@functools.cache
def _mkl_from() -> float:
    """The size from which torch's LAPACK is the faster; infinite without torch or on an unknown processor."""
    if importlib.util.find_spec("torch") is None:
        return np.inf
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return next((size for maker, size in MKL_FROM.items() if maker in text), np.inf)


def _carefully(matrix: Array) -> Array:
    """Eigenvalues of one ill-conditioned matrix: exactly zero rows and columns (dead units) stripped, then SVD."""
    tall = _tall(matrix)
    evals = np.zeros(tall.shape[1])
    alive = tall.any(axis=0)
    core = _reduced(tall if alive.all() else tall[:, alive])
    if core.size:
        singular = np.linalg.svd(core, compute_uv=False)
        evals[-len(singular) :] = singular[::-1] ** 2
    return evals


def _reduced(tall: Array) -> Array:
    """A matrix of the same singular values, float64, without zero rows: a long one by QR, block by block of its rows.

    It is never widened whole, which would take several times its memory.
    """
    columns = tall.shape[1]
    kept = np.zeros((0, columns))
    block = max(2 * columns, 256)
    for start in range(0, len(tall), block):
        rows = np.asarray(tall[start : start + block], np.float64)
        kept = np.concatenate([kept, rows[rows.any(axis=1)]])
        if len(kept) > block:
            kept = np.asarray(np.linalg.qr(kept, mode="r"))
    return kept


def _by_shape(solve: Callable[[Array, str], Array]) -> Solver:
    """A solver of stacks made one of matrices: those of one shape go together, in stacks that a GPU can take."""

    def solver(matrices: Sequence[Array], dtype: str) -> list[Array]:
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, matrix in enumerate(matrices):
            groups[matrix.shape].append(i)
        evals: dict[int, Array] = {}
        for (rows, columns), members in groups.items():
            size = max(1, STACK_BYTES // (8 * rows * columns))
            for start in range(0, len(members), size):
                some = members[start : start + size]
                evals |= zip(some, solve(np.stack([matrices[i] for i in some]), dtype), strict=True)
        return [evals[i] for i in range(len(matrices))]

    return solver


# On a GPU only the Gram matrix is made in the dtype asked for: cuSOLVER's batched float32 solver overestimates every
# eigenvalue by 1e-4, and an H100 is as fast in float64.
def _torch_cuda(stack: Array, dtype: str) -> Array:
    import torch

    tall = torch.from_numpy(stack).to("cuda").to(getattr(torch, dtype))
    gram = (tall.mT @ tall).to(torch.float64)
    finite = gram.isfinite().all(-1).all(-1)
    evals = torch.linalg.eigvalsh(gram.where(finite[:, None, None], 0.0))
    return evals.where(finite[:, None], torch.nan).cpu().numpy()


def _cupy(stack: Array, dtype: str) -> Array:
    cupy: Any = importlib.import_module("cupy")

    tall = cupy.asarray(stack).astype(dtype)
    gram = (tall.transpose(0, 2, 1) @ tall).astype(cupy.float64)
    finite = cupy.isfinite(gram).all(axis=(1, 2))
    gram = cupy.where(finite[:, None, None], gram, 0.0)
    if gram.shape[1] <= CUPY_BATCHED_UP_TO:
        evals = cupy.linalg.eigvalsh(gram)
    else:
        evals = cupy.stack([cupy.linalg.eigvalsh(one) for one in gram])
    return cupy.asnumpy(cupy.where(finite[:, None], evals, cupy.nan))


def _driver_present() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _torch_sees_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _cupy_sees_gpu() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return False
    try:
        return importlib.import_module("cupy").cuda.runtime.getDeviceCount() > 0
    except Exception:  # no driver, or a CuPy built for another CUDA: there is no GPU for us
        return False
