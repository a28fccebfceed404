"""From a weight tensor to its empirical spectral density: the eigenvalues of W^T W, not divided by N."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import as_matrices, is_convolution, kernel_slices
from raylab.spectral.backend import eigenvalues, resolve_device
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
    evals = _eigenvalues(stacks, [layer for _, layer in items], options)
    seeds = seeds if seeds is not None else [0] * len(items)
    return [
        _spectrum(np.sort(values.ravel()), stack, layer, options, seed)
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


def _eigenvalues(stacks: Sequence[Array], layers: Sequence[Layer], options: SpectralOptions) -> list[Array]:
    """Of every layer, together where shapes agree; convolutions on a torus one by one."""
    on_torus = {i for i, layer in enumerate(layers) if options.conv == "fft" and is_convolution(layer.kind)}
    others = iter(_eigenvalues_by_shape([s for i, s in enumerate(stacks) if i not in on_torus], options))
    return [
        torus_eigenvalues(stack, layers[i].shape[2:], options.dtype, options.device) if i in on_torus else next(others)
        for i, stack in enumerate(stacks)
    ]


def _eigenvalues_by_shape(stacks: Sequence[Array], options: SpectralOptions) -> list[Array]:
    if resolve_device(options.device) == "cpu":  # one by one is as fast there, and copies nothing
        return [eigenvalues(stack, options.dtype, "cpu") for stack in stacks]
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, stack in enumerate(stacks):
        groups[stack.shape[1:]].append(i)
    evals: list[Array] = [np.empty(0)] * len(stacks)
    for members in groups.values():
        together = np.concatenate([stacks[i] for i in members])
        values = eigenvalues(together, options.dtype, options.device)
        ends = np.cumsum([len(stacks[i]) for i in members])
        for i, part in zip(members, np.split(values, ends[:-1]), strict=True):
            evals[i] = part
    return evals


def _spectrum(evals: Array, matrices: Array, layer: Layer, options: SpectralOptions, seed: int) -> Spectrum:
    evals.flags.writeable = False  # metrics share it
    N, M = max(matrices.shape[1:]), min(matrices.shape[1:])
    return Spectrum(evals=evals, N=N, M=M, layer=layer, matrices=matrices, seed=seed, options=options)
