"""From a weight tensor to its empirical spectral density: the eigenvalues of W^T W, not divided by N."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import as_matrices
from raylab.spectral.backend import eigenvalues, eigenvalues_of
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
    stacks = [as_matrices(to_numpy(weights), layer, options.conv) for weights, layer in items]
    evals = _eigenvalues(stacks, options)
    seeds = seeds if seeds is not None else [0] * len(items)
    return [
        _spectrum(np.sort(values), stack, layer, options, seed)
        for values, stack, (_, layer), seed in zip(evals, stacks, items, seeds, strict=True)
    ]


def slice_spectra(weights: Any, layer: Layer, options: SpectralOptions, seed: int = 0) -> list[Spectrum]:
    """One spectrum for every matrix of a layer instead of pooled ones."""
    stack = as_matrices(to_numpy(weights), layer, options.conv)
    evals = eigenvalues(stack, options.dtype, options.device)
    return [_spectrum(evals[i], stack[i : i + 1], layer, options, seed) for i in range(len(stack))]


def to_numpy(weights: Any) -> Array:
    """A numpy array of a numpy, torch (any device or dtype) or array-like tensor, copied only if it must be."""
    if not hasattr(weights, "detach"):
        return np.asarray(weights)
    tensor = weights.detach().cpu()
    return (tensor.float() if tensor.element_size() < 4 else tensor).numpy()


def _eigenvalues(stacks: Sequence[Array], options: SpectralOptions) -> list[Array]:
    """The eigenvalues of each layer's matrices, one after another."""
    matrices = [matrix for stack in stacks for matrix in stack]
    evals = eigenvalues_of(matrices, options.dtype, options.device)
    ends = list(itertools.accumulate(len(stack) for stack in stacks))
    return [np.concatenate(evals[end - len(stack) : end]) for stack, end in zip(stacks, ends, strict=True)]


def _spectrum(evals: Array, matrices: Array, layer: Layer, options: SpectralOptions, seed: int) -> Spectrum:
    evals.flags.writeable = False  # metrics share it
    N, M = max(matrices.shape[1:]), min(matrices.shape[1:])
    return Spectrum(evals=evals, N=N, M=M, layer=layer, matrices=matrices, seed=seed, options=options)
