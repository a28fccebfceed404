"""Eigenvalues of W^T W on one core, from the routines of the LAPACK that scipy brings.

They are called through the addresses that `scipy.linalg.cython_lapack` exports, because scipy's own wrappers hold
Python's lock: so that layers can be solved in threads, side by side. Tridiagonalisation and the root-free QL iteration
are what `numpy.linalg.eigvalsh` does too; in narrow blocks, and without its copies, they take 15 to 30 % less.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raylab.types import Array

BLOCK_BYTES = 1 << 22  # of weights that are widened at a time: they stay in the cache, and W is never copied whole
# Columns in a block of the tridiagonalisation, from which size on: measured for n = 128 to 4,096.
WIDTHS = {0: 8, 768: 16, 1280: 32}
TWO_STAGE_FROM = 2048  # dense to band to tridiagonal beats the one-stage routine by 1.1 here and 1.5 at 3,072
_one_at_a_time = threading.Lock()
LETTER = {"float64": "d", "float32": "s"}


def gram(tall: Array, dtype: str = "float64") -> Array:
    """Lower triangle of tall^T tall in Fortran order, (columns, columns), summed in `dtype` from blocks of rows."""
    rows, columns = tall.shape
    total = np.zeros((columns, columns), dtype, order="F")
    block = max(256, BLOCK_BYTES // (8 * columns))
    if rows < 2 * block or (tall.dtype == dtype and (tall.flags.c_contiguous or tall.flags.f_contiguous)):
        block = max(rows, 1)
    for start in range(0, rows, block):
        _add_gram(total, tall[start : start + block])
    return total


def eigenvalues(matrices: Sequence[Array], dtype: str = "float64") -> list[Array]:
    """Ascending eigenvalues of the Gram matrix of each tall matrix, float64; NaN where an entry is not finite.

    Those with as many columns are solved together, if numba is there. It changes no bit of them how many there are.
    """
    found = [np.full(matrix.shape[1], np.nan) for matrix in matrices]
    waiting: dict[int, list[tuple[int, Array, Array]]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        lower = gram(matrix, dtype)
        if is_finite(lower):
            waiting[len(lower)].append((i, *tridiagonal(lower)))
    for n, tridiagonals in waiting.items():
        places, diagonals, off_diagonals = zip(*tridiagonals, strict=True)
        together = _compiled() if n < TWO_STAGE_FROM else None
        if together:
            found_together = together.eigenvalues(np.array(diagonals), np.array(off_diagonals))
            for place, evals in zip(places, found_together, strict=True):
                found[place][:] = evals
        for place, *pair in tridiagonals:
            if np.isnan(found[place][0]):
                found[place][:] = sterf(*pair)
    return found


def is_finite(gram: Array) -> bool:
    """Whether all entries behind a Gram matrix are: a sum of squares is finite if and only if all of its column are."""
    return bool(np.isfinite(gram.diagonal()).all())


def load() -> None:
    """Load the libraries behind `eigenvalues`, which it does itself where that has not been done."""
    _routine("blas", "syrk", "float64")
    _routine("lapack", "sytrd", "float64")


def sterf(diagonal: Array, off_diagonal: Array) -> Array:
    """Ascending eigenvalues of a symmetric tridiagonal matrix, which is destroyed: LAPACK's QL iteration."""
    n, failed = ctypes.c_int(len(diagonal)), ctypes.c_int()
    _routine("lapack", "sterf", diagonal.dtype.name)(_at(n), _of(diagonal), _of(off_diagonal), _at(failed))
    if failed.value:  # has not been seen: some eigenvalue took more than 30 sweeps
        raise np.linalg.LinAlgError(f"{failed.value} eigenvalues of a matrix of size {n.value} did not converge")
    return diagonal


@functools.cache
def _compiled() -> Any:
    """raylab.spectral.compiled, None without numba. Importing it takes a quarter of a second."""
    try:
        return importlib.import_module("raylab.spectral.compiled")
    except (ImportError, RuntimeError):  # RuntimeError: numba finds no folder that its cache may lie in
        return None


def _add_gram(total: Array, block: Array) -> None:
    """total += block^T block, lower triangle."""
    as_rows = abs(block.strides[0]) >= abs(block.strides[1])  # so that widening reads memory in order
    stored = np.ascontiguousarray(block if as_rows else block.T, total.dtype)
    rows, columns = block.shape
    one = np.ones(1, total.dtype)
    _routine("blas", "syrk", total.dtype.name)(
        b"L", b"N" if as_rows else b"T", _at(ctypes.c_int(columns)), _at(ctypes.c_int(rows)),
        _of(one), _of(stored), _at(ctypes.c_int(stored.shape[1])),
        _of(one), _of(total), _at(ctypes.c_int(columns)),
    )  # fmt: skip


def tridiagonal(lower: Array) -> tuple[Array, Array]:
    """Diagonal and off-diagonal of the tridiagonal matrix with the same eigenvalues."""
    n = len(lower)
    diagonal, off_diagonal, reflectors = (np.empty(max(n, 1), lower.dtype) for _ in range(3))
    two_stage = _two_stage(lower.dtype.name) if n >= TWO_STAGE_FROM else None
    common = (_at(ctypes.c_int(n)), _of(lower), _at(ctypes.c_int(n)), _of(diagonal), _of(off_diagonal), _of(reflectors))
    if two_stage:
        sizes = np.empty(2, lower.dtype)
        ask = ctypes.c_int(-1)
        two_stage(b"N", b"L", *common, _of(sizes), _at(ask), _of(sizes[1:]), _at(ask), _at(ctypes.c_int()), *_LENGTHS)
        spaces = [np.empty(int(size), lower.dtype) for size in sizes]
        lent = [argument for space in spaces for argument in (_of(space), _at(ctypes.c_int(len(space))))]
        two_stage(b"N", b"L", *common, *lent, _at(ctypes.c_int()), *_LENGTHS)
    else:
        width = next(width for size, width in reversed(WIDTHS.items()) if n >= size)
        space = np.empty(width * max(n, 1), lower.dtype)
        routine = _routine("lapack", "sytrd", lower.dtype.name)
        routine(b"L", *common, _of(space), _at(ctypes.c_int(len(space))), _at(ctypes.c_int()))
    return diagonal, off_diagonal[: n - 1]


_LENGTHS = (ctypes.c_size_t(1), ctypes.c_size_t(1))  # of two CHARACTER arguments, which Fortran passes at the end


@functools.cache
def _routine(library: str, name: str, dtype: str) -> Any:
    """A BLAS or LAPACK routine as a function of pointers. ctypes lets go of Python's lock while it runs."""
    with _one_at_a_time:  # threads that begin together must not come upon half of a module
        capsule = _extension(f"cython_{library}").__pyx_capi__[LETTER[dtype] + name]
    signature = ctypes.pythonapi.PyCapsule_GetName
    signature.restype, signature.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(address(capsule, signature(capsule)))


def _extension(name: str) -> Any:
    """A compiled module of scipy.linalg, without the package around it, which takes longer to import than numpy."""
    full = f"scipy.linalg.{name}"
    package = importlib.util.find_spec("scipy")
    folders = [str(Path(folder) / "linalg") for folder in (package and package.submodule_search_locations) or ()]
    spec = importlib.machinery.PathFinder.find_spec(full, folders)
    if full in sys.modules or spec is None or spec.loader is None:
        return importlib.import_module(full)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _two_stage(dtype: str) -> Any:
    """OpenBLAS's two-stage tridiagonalisation, which scipy does not export; None with another LAPACK."""
    import threadpoolctl

    for pool in threadpoolctl.threadpool_info():
        library = ctypes.CDLL(pool["filepath"])
        for prefix in ("scipy_", ""):
            if pool["internal_api"] == "openblas" and hasattr(library, f"{prefix}{LETTER[dtype]}sytrd_2stage_"):
                return getattr(library, f"{prefix}{LETTER[dtype]}sytrd_2stage_")
    return None


def _at(number: Any) -> Any:
    return ctypes.byref(number)


def _of(array: Array) -> Any:
    return ctypes.c_void_p(array.ctypes.data)
