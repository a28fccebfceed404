"""From a weight tensor to its empirical spectral density: the eigenvalues of W^T W, not divided by N."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import as_matrices, is_convolution, kernel_slices
from raylab.spectral import low_rank
from raylab.spectral.backend import eigenvalues, eigenvalues_of
from raylab.spectral.torus import torus_eigenvalues
from raylab.types import Array, Layer, SpectralOptions, Spectrum


def spectrum(weights: Any, layer: Layer, options: SpectralOptions | None = None, seed: int = 0) -> Spectrum:
    """The spectrum of one layer. See `spectra`."""
    return spectra([(weights, layer)], options, [seed])[0]


def spectra(
    items: Sequence[tuple[Any, Layer]], options: SpectralOptions | None = None, seeds: Sequence[int] | None = None
) -> list[Spectrum]:
    """The spectra of many layers, in their order; matrices of one shape go to the eigensolver together.

    items: (weight tensor as the model stores it: numpy or torch, any float dtype and device; its layer).
    A layer with a NaN or an infinity has a spectrum of NaN. Raises UserError for conv="slices", which makes several
    spectra of a layer: see `slice_spectra`.
    """
    options = options or SpectralOptions()
    if options.conv == "slices":
        raise UserError("conv=slices makes several spectra of one layer: use raylab.analyze, or conv=pooled here.")
    stacks = [_stack(weights, layer, options) for weights, layer in items]
    evals = _eigenvalues(items, stacks, options)
    seeds = seeds if seeds is not None else [0] * len(items)
    return [
        _spectrum(np.sort(values), stack, layer, options, seed)
        for values, stack, (_, layer), seed in zip(evals, stacks, items, seeds, strict=True)
    ]


def slice_spectra(weights: Any, layer: Layer, options: SpectralOptions, seed: int = 0) -> list[Spectrum]:
    """One spectrum for every matrix of a layer instead of pooled ones."""
    stack = as_matrices(weights, layer, options.conv, options.groups)
    evals = eigenvalues(stack, options.dtype, options.device)
    return [_spectrum(evals[i], stack[i : i + 1], layer, options, seed) for i in range(len(stack))]


def _stack(weights: Any, layer: Layer, options: SpectralOptions) -> Array:
    """What a spectrum keeps: a layer's matrices, or for conv="fft", whose are a thousand times as many, its slices."""
    if options.conv == "fft" and is_convolution(layer.kind):
        return kernel_slices(weights, layer, options.groups)
    return as_matrices(weights, layer, options.conv, options.groups)


def _eigenvalues(items: Sequence[tuple[Any, Layer]], stacks: Sequence[Array], options: SpectralOptions) -> list[Array]:
    """Of every layer, those of its matrices one after another: solved together, but for what has a way of its own."""
    own = [
        _in_its_own_way(weights, layer, stack, options) for (weights, layer), stack in zip(items, stacks, strict=True)
    ]
    others = [matrix for evals, stack in zip(own, stacks, strict=True) if evals is None for matrix in stack]
    solved = iter(eigenvalues_of(others, options.dtype, options.device))
    return [
        np.concatenate(list(itertools.islice(solved, len(stack)))) if evals is None else evals
        for evals, stack in zip(own, stacks, strict=True)
    ]


def _in_its_own_way(weights: Any, layer: Layer, stack: Array, options: SpectralOptions) -> Array | None:
    """A convolution on a torus, a product of factors; None for what an eigensolver takes as it is."""
    if options.conv == "fft" and is_convolution(layer.kind):
        return torus_eigenvalues(stack, layer.shape[2:], options.dtype, options.device)
    if hasattr(weights, "factors") and len(layer.shape) == 2:
        return low_rank.eigenvalues(*weights.factors)
    return None


def _spectrum(evals: Array, matrices: Array, layer: Layer, options: SpectralOptions, seed: int) -> Spectrum:
    evals.flags.writeable = False  # metrics share it
    N, M = max(matrices.shape[1:]), min(matrices.shape[1:])
    return Spectrum(evals=evals, N=N, M=M, layer=layer, matrices=matrices, seed=seed, options=options)
