"""Eigenvalues of stacks of matrices on a GPU against LAPACK: right, and how fast?

    python -m benchmarks.gpu_spectral

Needs numpy, scipy and whichever of torch and CuPy is to be measured; nothing else of raylab's dependencies. Wall time,
the transfer of the weights included, best of three after a warm-up. Set OMP_NUM_THREADS to choose the CPU's side.
Exit code 1 if the eigenvalues of a backend are off by more than 1e-12 of the largest at a size for which raylab uses it
(CuPy's batched solver, Jacobi's, is both slow and less exact at large ones).
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
from collections.abc import Callable

import numpy as np

from raylab.spectral import backend

SHAPES = [  # (matrices, rows, columns)
    (500, 100, 100),
    (1000, 128, 64),
    (200, 512, 256),
    (100, 512, 512),
    (20, 784, 512),
    (24, 3072, 768),
    (8, 1280, 1280),
    (4, 5120, 1280),
    (2, 3000, 3000),
]
LAPACK_MATRICES = 4  # measured on this many, and scaled up
TOLERANCE = 1e-12


def weights(shape: tuple[int, int, int]) -> np.ndarray:
    """float32 weights with a heavy-tailed spectrum, deterministic."""
    rng = np.random.default_rng(shape)
    return (rng.standard_t(4, size=shape) / np.sqrt(shape[1])).astype(np.float32)


def best_of(work: Callable[[], np.ndarray], rounds: int = 3) -> tuple[float, np.ndarray]:
    result = work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def variants() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name -> eigenvalues of a stack, for every GPU backend that is here. CuPy both batched and one by one."""
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    if backend.available("torch-cuda"):
        found["torch"] = lambda stack: backend.eigenvalues(stack, "float64", "torch-cuda")
    if backend.available("cupy"):
        found["CuPy batched"] = lambda stack: _cupy(stack, up_to=1 << 20)
        found["CuPy one by one"] = lambda stack: _cupy(stack, up_to=0)
    return found


def _cupy(stack: np.ndarray, up_to: int) -> np.ndarray:
    usual, backend.CUPY_BATCHED_UP_TO = backend.CUPY_BATCHED_UP_TO, up_to
    try:
        return backend.eigenvalues(stack, "float64", "cupy")
    finally:
        backend.CUPY_BATCHED_UP_TO = usual


def row(shape: tuple[int, int, int], solvers: dict[str, Callable[[np.ndarray], np.ndarray]]) -> tuple[str, float]:
    """One line of the table, and the largest error of any backend."""
    stack = weights(shape)
    few = stack[:LAPACK_MATRICES]
    seconds, truth = best_of(lambda: backend.eigenvalues(few, "float64", "cpu"), rounds=1)
    cells = [f"{1000 * seconds * len(stack) / len(few):,.1f}"]
    worst = 0.0
    for name, solve in solvers.items():
        seconds, evals = best_of(lambda solve=solve: solve(stack))
        error = float(np.max(np.abs(evals[: len(few)] - truth) / truth[:, -1:]))
        if name != "CuPy batched" or min(shape[1:]) <= backend.CUPY_BATCHED_UP_TO:
            worst = max(worst, error)
        cells.append(f"{1000 * seconds:,.1f} ({error:.0e})")
    return f"| {shape[0]} x {shape[1]}x{shape[2]} | {' | '.join(cells)} |", worst


def main() -> int:
    solvers = variants()
    if not solvers:
        print("No GPU is visible to torch or CuPy here.")
        return 2
    packages = ["numpy", "scipy", "torch", "cupy-cuda13x", "cupy-cuda12x"]
    installed = [name for name in packages if any(importlib.metadata.distributions(name=name))]
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in installed))
    print(f"\n| stack | LAPACK, ms | {' | '.join(f'{name}, ms (error / largest)' for name in solvers)} |")
    print("|---|" + "---|" * (len(solvers) + 1), flush=True)
    worst = 0.0
    for shape in SHAPES:
        line, error = row(shape, solvers)
        worst = max(worst, error)
        print(line, flush=True)
    print(f"\nlargest error {worst:.1e} of the largest eigenvalue: {'ok' if worst <= TOLERANCE else 'TOO LARGE'}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
