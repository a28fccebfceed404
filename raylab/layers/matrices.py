"""Which matrices a layer stands for, and how many of which size before a number is read.

A transposed convolution is the adjoint of the convolution with the same tensor, and is measured as that: the singular
values are the same. Kernels have one, two or three dimensions, and every treatment means the same for each.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.layers.kinds import NO_MATRIX, is_convolution
from raylab.registry import suggest
from raylab.types import Array, Layer

CONV_TREATMENTS = ("pooled", "slices", "reshape", "fft")
GROUP_TREATMENTS = ("stored", "blocks")
GRID = {1: 32, 2: 32, 3: 8}  # points a side of the torus of conv="fft", by the dimensions of the kernel


def matrices_shape(layer: Layer, conv: str = "pooled", groups: str = "stored") -> tuple[int, int, int]:
    """(number of matrices, N, M) that a layer stands for; N the longer side."""
    blocks, rows, columns, kernel = _geometry(layer, groups)
    count = prod(kernel)
    if kernel and conv == "reshape":
        columns, count = columns * count, 1
    elif kernel and conv == "fft":
        count = prod(_grid(kernel))
    return blocks * count, max(rows, columns), min(rows, columns)


def has_matrices(layer: Layer) -> bool:
    """Whether a layer, one that is skipped perhaps, is of a kind and shape that `matrices_shape` knows."""
    if is_convolution(layer.kind) or layer.kind == "bilinear":
        return True
    return layer.kind != NO_MATRIX and len(layer.shape) == 2


def size_columns(layer: Layer, conv: str, groups: str) -> dict[str, int]:
    """The columns N, M and matrices (how many a row pools) of a layer; none for one that stands for no matrix."""
    if not has_matrices(layer):
        return {}
    count, N, M = matrices_shape(layer, conv, groups)
    return {"N": N, "M": M, "matrices": 1 if conv == "slices" else count}


def as_matrices(weights: Any, layer: Layer, conv: str = "pooled", groups: str = "stored") -> Array:
    """The matrices that a layer stands for, (matrices, rows, columns); without a copy where they lie as they are.

    weights: the layer's tensor, numpy or torch of any float dtype, or anything numpy can read. Two dimensions: the
    tensor itself. bilinear (out, a, b): one a x b matrix an output. A convolution (out, in/groups, *kernel) with k
    elements in its kernel, by `conv`:
    "pooled", the k slices times sqrt(1/2) (weightwatcher's default);
    "slices", the same slices times sqrt(k/2) (Martin, Peng & Mahoney 2021, method 1);
    "reshape", one matrix out x (in*k), not scaled (method 2);
    "fft", the complex out x in matrices of the kernel's Fourier transform, not scaled: one for every frequency of a
    torus of 32, 32 x 32 or 8 x 8 x 8 points (more where the kernel is larger). Their singular values together are those
    of the circular convolution on that torus (Sedghi et al. 2019; method 3).
    groups: "stored" takes the tensor as it lies, "blocks" the matrices of every group by themselves.
    Raises UserError for another treatment.
    """
    check_treatments(conv, groups)
    if conv == "fft" and is_convolution(layer.kind):
        kernel = layer.shape[2:]
        slices = kernel_slices(weights, layer, groups)
        by_block = slices.reshape(-1, prod(kernel), prod(slices.shape[1:]))
        return (_waves(kernel, _frequencies(kernel)) @ by_block).reshape(-1, *slices.shape[1:])
    array = _checked(weights, layer)
    blocks, rows, columns, kernel = _geometry(layer, groups)
    if not kernel or conv == "reshape":
        return array.reshape(blocks, rows, columns * prod(kernel))
    scale = np.sqrt((prod(kernel) if conv == "slices" else 1) / 2)
    by_slice = array.reshape(blocks, rows, columns, -1).transpose(0, 3, 1, 2)
    return np.multiply(by_slice, scale, order="C").reshape(-1, rows, columns)


def kernel_slices(weights: Any, layer: Layer, groups: str = "stored") -> Array:
    """The slices of a convolution as they are, (groups * elements of the kernel, rows, columns), float64."""
    blocks, rows, columns, _ = _geometry(layer, groups)
    by_slice = _checked(weights, layer).reshape(blocks, rows, columns, -1).transpose(0, 3, 1, 2)
    return np.asarray(by_slice, np.float64, order="C").reshape(-1, rows, columns)


def half_spectrum(kernel: tuple[int, ...]) -> tuple[Array, Array]:
    """What makes the matrices of conv="fft" from a kernel's slices, and how often each counts.

    Returns (frequencies, elements of the kernel), complex, to be multiplied with the slices; and (frequencies,), 2 for
    those whose matrix is the conjugate of another one, which is left out because its singular values are the same.
    """
    grid = np.array(_grid(kernel))
    every = _frequencies(kernel)
    mirrored = (-every) % grid
    order = np.cumprod([1, *grid[:0:-1]])[::-1]
    here, there = every @ order, mirrored @ order
    return _waves(kernel, every[here <= there]), np.where(here == there, 1, 2)[here <= there]


def check_treatments(conv: str, groups: str) -> None:
    """Raise UserError for treatments that do not exist."""
    if conv not in CONV_TREATMENTS:
        raise UserError(f"Unknown treatment of convolutions conv={conv}.{suggest(conv, CONV_TREATMENTS)}")
    if groups not in GROUP_TREATMENTS:
        raise UserError(f"Unknown treatment of grouped convolutions groups={groups}: use stored or blocks.")


def to_numpy(weights: Any) -> Array:
    """A numpy array of a numpy, torch (any device) or array-like tensor. Half precision is widened, which is exact."""
    if hasattr(weights, "detach"):
        tensor = weights.detach().cpu()
        return (tensor.float() if tensor.element_size() < 4 else tensor).numpy()
    array = np.asarray(weights)
    return array.astype(np.float32) if array.itemsize < 4 else array


def _checked(weights: Any, layer: Layer) -> Array:
    if tuple(weights.shape) != layer.shape:
        raise ValueError(f"layer {layer.name} has shape {layer.shape}, not {tuple(weights.shape)}")
    return to_numpy(weights)


def _geometry(layer: Layer, groups: str) -> tuple[int, int, int, tuple[int, ...]]:
    """(blocks, rows, columns, kernel): the tensor is (blocks * rows, columns, *kernel), or that of a matrix a block."""
    if layer.kind == "bilinear":
        out, rows, columns = layer.shape
        return out, rows, columns, ()
    if not is_convolution(layer.kind):
        rows, columns = layer.shape
        return 1, rows, columns, ()
    out, into, *kernel = layer.shape
    blocks = layer.groups if groups == "blocks" else 1
    return blocks, out // blocks, into, tuple(kernel)


def _grid(kernel: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(GRID[len(kernel)], size) for size in kernel)


def _frequencies(kernel: tuple[int, ...]) -> Array:
    return np.array(list(product(*(range(size) for size in _grid(kernel)))))


def _waves(kernel: tuple[int, ...], frequencies: Array) -> Array:
    """exp(-2 pi i <frequency, place>), (frequencies, elements of the kernel)."""
    places = np.array(list(product(*(range(size) for size in kernel))))
    turns = (frequencies / np.array(_grid(kernel))) @ places.T
    return np.exp(-2j * np.pi * turns)
