"""What perturbations get to see of a layer: its trained tensors, theta_0, and the law that it is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from raylab.layers import LayerParameters, bias_beside
from raylab.models.recording.entry_laws import Law
from raylab.types import Array, LayerWeights

Draw = Callable[[np.random.Generator], Array]


def layer_weights(
    parameters: LayerParameters,
    trained: Mapping[str, Array],
    initial: Mapping[str, Array] | None,
    draw: Callable[[str], Draw],
) -> dict[str, LayerWeights]:
    """By "weight" and then "bias", where there is one. draw: how a parameter is drawn afresh, by its name."""
    return {
        leaf: LayerWeights(
            parameters.layer,
            leaf,
            _part(parameters, trained[name]),
            None if initial is None else _part(parameters, initial[name]),
            draw(name),
        )
        for leaf, name in zip(("weight", "bias"), parameters.names, strict=False)
    }


@dataclass(frozen=True)
class FreshDraw:
    """A parameter of a layer, or the part of it that the layer is, from its law. str() names the law."""

    law: Law
    shape: tuple[int, ...]  # of the whole parameter
    parameters: LayerParameters

    def __call__(self, rng: np.random.Generator) -> Array:
        """A fresh tensor."""
        part = self.parameters.part
        if part is not None and self.law.entries_alike:
            return self.law.draw(rng, part.shape)
        return _part(self.parameters, self.law.draw(rng, self.shape))

    def __str__(self) -> str:
        return str(self.law)


def bias_column(parameters: LayerParameters, tensors: Mapping[str, Array]) -> str:
    """Whether the layer's bias goes with its weights."""
    if parameters.bias is not None:
        return "replaced"
    return "none" if bias_beside(parameters.weight, tensors) is None else "kept"


def buffers_column(tensors: Mapping[str, Array]) -> str:
    """What becomes of batch norm's statistics."""
    return "kept" if any(name.endswith("running_mean") for name in tensors) else "none"


def _part(parameters: LayerParameters, whole: Array) -> Array:
    return whole if parameters.part is None else parameters.part.of(np.ascontiguousarray(whole))
