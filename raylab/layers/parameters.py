"""Which parameters of a torch module a layer is made of, so that it can be given other weights."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylab.layers.find import weights
from raylab.types import Array, Layer, SpectralOptions


@dataclass(frozen=True, slots=True)
class Part:
    """Where in the memory of a whole tensor one of its parts lies: an expert, the queries of a fused projection."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements
    offset: int

    def of(self, whole: Array) -> Array:
        """The part, a view of a contiguous array."""
        start = whole.reshape(-1)[self.offset :]
        strides = tuple(step * whole.itemsize for step in self.stride)
        return np.lib.stride_tricks.as_strided(start, self.shape, strides)


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """A layer, and the parameters that are replaced with it."""

    layer: Layer
    weight: str  # name of the parameter that its tensor is, or is a part of
    bias: str | None  # name of the bias that belongs to it; None also where the layer is a part of a tensor
    part: Part | None
    tied: tuple[str, ...]  # other names of the same parameter: what holds it changes along

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter that is replaced."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


def parameters_of(
    model: Any, layers: Sequence[Layer], options: SpectralOptions | None = None
) -> list[LayerParameters | None]:
    """The parameters behind layers of a torch module, as `find_layers` gives them with the same options.

    None for a layer whose tensor is no parameter (weight norm, a buffer).
    """
    tensors = weights(model, options)
    named = dict(model.named_parameters(remove_duplicate=False))
    names: dict[int, list[str]] = {}
    for name, parameter in named.items():
        names.setdefault(id(parameter), []).append(name)

    def found(layer: Layer) -> LayerParameters | None:
        whole, tensor = named.get(layer.parameter), tensors[layer.name]
        if whole is None or tensor.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
            return None
        part = None
        if tuple(tensor.shape) != tuple(whole.shape):
            part = Part(tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset() - whole.storage_offset())
        tied = tuple(name for name in names[id(whole)] if name != layer.parameter)
        bias = None if part or tied else bias_beside(layer.parameter, named)
        return LayerParameters(layer, layer.parameter, bias, part, tied)

    return [found(layer) for layer in layers]


def bias_beside(weight: str, named: Container[str]) -> str | None:
    """The bias of a weight, by the names that torch gives: weight and bias, in_proj_weight, weight_ih_l0."""
    parent, dot, leaf = weight.rpartition(".")
    bias = f"{parent}{dot}{leaf.replace('weight', 'bias')}"
    return bias if bias != weight and bias in named else None
