"""ReLU networks of fully connected layers, as in "Efficacy of data-free metrics", Section 4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raylab.types import Array, Layer


class _Empty(nn.Linear):
    def reset_parameters(self) -> None:
        """Leave them as they are."""


def _empty_linear(fan_in: int, fan_out: int) -> nn.Linear:
    """torch's Linear without default weights, which would draw from torch's global generator.

    nn.utils.skip_init makes such too, through the device "meta", whose first use imports a second's worth of compiler.
    """
    made: Any = _Empty(fan_in, fan_out)
    made.__class__ = nn.Linear
    return made


class FCN(nn.Module):
    """inputs - width x depth - outputs, with ReLU between. Its layers are fc1 .. fc{depth+1}."""

    def __init__(self, inputs: int, outputs: int, depth: int, width: int) -> None:
        if min(inputs, outputs, width) < 1 or depth < 0:
            given = f"inputs={inputs}, outputs={outputs}, width={width}, depth={depth}"
            raise ValueError(f"{given}: give at least 1 of each, and a depth of 0 (no hidden layer) or more")
        super().__init__()
        self.sizes = (inputs, *[width] * depth, outputs)
        for k, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False), start=1):
            setattr(self, f"fc{k}", _empty_linear(fan_in, fan_out))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """fc1 .. fc{depth+1}, in the order of the forward pass."""
        return tuple(f"fc{k}" for k in range(1, len(self.sizes)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (samples, outputs) of inputs (samples, inputs)."""
        *hidden, last = self.layer_names
        for name in hidden:
            x = torch.relu(getattr(self, name)(x))
        return getattr(self, last)(x)

    def initial_state(self, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        """theta_0: every weight and bias from U(-1/sqrt(in), 1/sqrt(in)), drawn by numpy: the same on every device."""
        state = {}
        for name, fan_in, fan_out in zip(self.layer_names, self.sizes, self.sizes[1:], strict=False):
            state[f"{name}.weight"] = InitialLaw((fan_out, fan_in), fan_in)(rng)
            state[f"{name}.bias"] = InitialLaw((fan_out,), fan_in)(rng)
        return state

    def initial_law(self, layer: Layer, parameter: str) -> InitialLaw:
        """The law that theta_0 drew a parameter ("weight" or "bias") of a layer from."""
        shape = tuple(self.get_submodule(layer.name).get_parameter(parameter).shape)
        return InitialLaw(shape, layer.shape[1])

    def load(self, state: Mapping[str, Array]) -> FCN:
        """Take over weights, as `initial_state` and `train` give them; returns itself."""
        self.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
        return self.eval()


@dataclass(frozen=True)
class InitialLaw:
    """U(-1/sqrt(in), 1/sqrt(in)), with which torch initialises linear layers too. Picklable; str() names it."""

    shape: tuple[int, ...]
    fan_in: int

    def __call__(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A fresh tensor."""
        bound = 1 / math.sqrt(self.fan_in)
        return rng.uniform(-bound, bound, self.shape).astype(np.float32)

    def __str__(self) -> str:
        bound = f"{1 / math.sqrt(self.fan_in):.3g}"
        return f"U(-{bound}, {bound})"
