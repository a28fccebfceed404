"""A classifier whose initial weights can be drawn, as often as is asked for, from the laws that its library uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import bias_beside, find_layers
from raylab.models.initial_laws import laws_of
from raylab.models.networks import Network, of_module
from raylab.models.recording.entry_laws import Fixed, Law, Uninitialised
from raylab.types import Array, digest

if TYPE_CHECKING:
    from torch import nn

State = Mapping[str, Array]


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawn:
    """An architecture without weights of its own. Picklable; its arrays are handed out without a copy."""

    network: Network  # as its library built it once: only its buffers are used
    laws: Mapping[str, Law]  # parameter -> how it is initialised
    own: Callable[[], Any] | None = None  # builds a model that draws its own theta_0: it has initial_state(rng)

    @property
    def identity(self) -> str:
        """Digest of the architecture, and of the laws and buffers that it starts from."""
        buffers = {name: _content(self.network.tensors[name]) for name in self._buffers()}
        return digest([f"{self.network.skeleton}", {name: _described(law) for name, law in self.laws.items()}, buffers])

    def initial_state(self, rng: np.random.Generator) -> dict[str, Array]:
        """theta_0: each parameter drawn by numpy from its law, tied ones once; buffers as they are built."""
        if self.own:
            return {**self.own().initial_state(rng), **{name: self.network.tensors[name] for name in self._buffers()}}
        drawn = {id(p): self._draw(name, rng) for name, p in self.network.skeleton.named_parameters()}
        parameters = self.network.skeleton.named_parameters(remove_duplicate=False)
        buffers = {name: self.network.tensors[name] for name in self._buffers()}
        return {name: drawn[id(p)] for name, p in parameters} | buffers

    def module(self, state: State, device: str = "cpu") -> nn.Module:
        """The torch module with such weights, to be evaluated. On a CPU its parameters are the arrays."""
        return _side_by_side(replace(self.network, tensors={**self.network.tensors, **state}).module(device))

    def trainable(self, state: State, device: str = "cpu") -> nn.Module:
        """The torch module with copies of such weights, and gradients."""
        module = self.module(state, device).train()
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
        return module

    def _draw(self, name: str, rng: np.random.Generator) -> Array:
        return self.laws[name].draw(rng, self._shape(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.network.tensors[name].shape

    def _buffers(self) -> list[str]:
        parameters = dict(self.network.skeleton.named_parameters(remove_duplicate=False))
        return [name for name in self.network.tensors if name not in parameters]


@dataclass(frozen=True)
class OwnLaw(Law):
    """What a model says of itself, as raylab.models.fcn.FCN does."""

    law: Callable[[np.random.Generator], Array]

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """A fresh tensor."""
        return self.law(rng)

    def __str__(self) -> str:
        return str(self.law)


def drawn(name: str, build: Callable[[], Any]) -> Drawn:
    """The classifier that `build` makes, a torch module. Raises UserError where one of its parameters has no law.

    One that has `initial_state` and `initial_law`, as raylab.models.fcn.FCN, draws its own weights.
    """
    model = build()
    network = of_module(name, model, build)
    if hasattr(model, "initial_state") and hasattr(model, "initial_law"):
        return Drawn(network=network, laws=dict(_own_laws(model)), own=build)
    laws = laws_of(build)
    unknown = [
        parameter
        for parameter, _ in network.skeleton.named_parameters()
        if isinstance(laws.get(parameter), Uninitialised | None)
    ]
    if unknown:
        raise UserError(
            f"The model {name} cannot be trained from weights drawn here: its parameter {unknown[0]} is the same "
            "whatever the seed, or never initialised. Let what builds it draw its weights, and seed nothing itself."
        )
    return Drawn(network=network, laws=laws)


def _own_laws(model: Any) -> Iterator[tuple[str, Law]]:
    """Of the layers, which are what is drawn afresh."""
    for layer in find_layers(model)[0]:
        names = (layer.parameter, bias_beside(layer.parameter, dict(model.named_parameters())))
        yield from ((name, OwnLaw(model.initial_law(layer, name.rpartition(".")[2]))) for name in names if name)


def _described(law: Law) -> str:
    """To the last digit, where there are any."""
    return _content(law.values) if isinstance(law, Fixed) else repr(law) if law.entries_alike else str(law)


def _content(array: Array) -> str:
    return digest([array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes().hex()])


def _side_by_side(module: nn.Module) -> nn.Module:
    """The weights of convolutions with the channels of a pixel side by side: a fifth to a quarter faster on a core."""
    import torch

    return module.to(memory_format=torch.channels_last)
