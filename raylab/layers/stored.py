"""The tensors of two or more dimensions that a model holds, each under its name in the state dict.

A weight that is computed from others (weight norm, spectral norm, pruning) stands once, as it is used, under the name
it has without them; what it is computed from is listed with the reason why it is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.layers.kinds import NOWHERE, Place, is_uninitialised
from raylab.layers.matrices import to_numpy
from raylab.types import Array

_PACKED = ("weight", "qweight", "weight_packed")  # where quantised modules keep integers, as buffers


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor, where it lies, and why it is not to be measured, if so."""

    name: str
    tensor: Any
    place: Place = NOWHERE
    reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """A weight computed from tensors of a state dict, when it is asked for."""

    parts: tuple[Any, ...]
    compute: Callable[..., Array]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight, which is the first part's."""
        return tuple(self.parts[0].shape)

    @property
    def dtype(self) -> Any:
        """Of the first part."""
        return self.parts[0].dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        weight = self.compute(*(to_numpy(part) for part in self.parts))
        return weight if dtype is None else weight.astype(dtype)


def stored_tensors(model: Any) -> Iterator[Stored]:
    """Every tensor of two or more dimensions of a torch module or mapping, in order of registration.

    Reads names and shapes only, but for weights that a torch module computes. Raises UserError for anything else.
    """
    if isinstance(model, Mapping):
        yield from _of_mapping({str(name): tensor for name, tensor in model.items()})
    elif hasattr(model, "named_modules"):
        yield from _of_module(model)
    else:
        raise UserError(f"A model is a torch module or a mapping of names to tensors, not {type(model).__name__}.")


def _of_module(model: Any) -> Iterator[Stored]:
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        place = Place(tuple(_upwards(path, modules)))
        raw: dict[str, str] = {}
        for name, tensor, parts in _computed_by(module):
            raw |= dict.fromkeys(parts, f"part of {_join(path, name)}, which is measured as it is used")
            yield Stored(_join(path, name), tensor, place)
        base, inside, _ = f".{path}".partition(".parametrizations.")
        for name, tensor in module.named_parameters(recurse=False, remove_duplicate=False):
            reason = f"part of a parametrization of {base[1:] or 'the model'}, measured as it is used"
            if is_uninitialised(tensor) and "bias" not in name:
                yield Stored(_join(path, name), tensor, place)
            elif not is_uninitialised(tensor) and tensor.ndim >= 2:
                yield Stored(_join(path, name), tensor, place, reason if inside else raw.get(name))
        yield from _packed(path, module, place)


def _upwards(path: str, modules: Mapping[str, Any]) -> Iterator[Any]:
    """The module of a path, and those around it."""
    while path:
        yield modules[path]
        path = path.rpartition(".")[0]
    yield modules[""]


def _computed_by(module: Any) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """(name, value as it is used, names of what it is computed from) of the weights that a torch module computes."""
    for name, parametrization in getattr(module, "parametrizations", {}).items():
        yield name, _in_evaluation(parametrization, lambda name=name: getattr(module, name)), ()
    for hook in getattr(module, "_forward_pre_hooks", {}).values():  # the older way; its attribute may be stale
        if hasattr(hook, "compute_weight") and hasattr(hook, "n_power_iterations"):
            yield hook.name, hook.compute_weight(module, False).detach(), (f"{hook.name}_orig",)
        elif hasattr(hook, "compute_weight"):
            yield hook.name, hook.compute_weight(module).detach(), (f"{hook.name}_g", f"{hook.name}_v")
        elif hasattr(hook, "apply_mask"):
            name = hook._tensor_name
            yield name, hook.apply_mask(module).detach(), (f"{name}_orig",)


def _in_evaluation(parametrization: Any, compute: Callable[[], Any]) -> Any:
    """The value out of training mode, in which spectral norm moves its vectors on: a model is left as it was."""
    modules = [module for module in parametrization.modules() if module.training]
    for module in modules:
        module.training = False
    try:
        return compute().detach()
    finally:
        for module in modules:
            module.training = True


def _packed(path: str, module: Any, place: Place) -> Iterator[Stored]:
    """Integer weights, which are no parameters, so that a quantised layer is no silent gap."""
    for name, buffer in module.named_buffers(recurse=False):
        if name in _PACKED and buffer.ndim >= 2 and not buffer.is_floating_point():
            yield Stored(_join(path, name), buffer, place)
    if hasattr(module, "_packed_params") and callable(getattr(module, "weight", None)):
        yield Stored(_join(path, "weight"), module.weight(), place)


def _of_mapping(tensors: dict[str, Any]) -> Iterator[Stored]:
    computed, raw = _computed_in(tensors)
    for name, tensor in tensors.items():
        yield from computed.pop(name, ())
        if len(tuple(getattr(tensor, "shape", ()))) >= 2:
            yield Stored(name, tensor, reason=raw.get(name))


def _computed_in(tensors: Mapping[str, Any]) -> tuple[dict[str, list[Stored]], dict[str, str]]:
    """By the first of their parts the weights that a state dict lets us compute; and why parts are not measured."""
    computed: dict[str, list[Stored]] = {}
    raw: dict[str, str] = {}
    for name in tensors:
        for base, parts, compute in _recipes(name):
            if base in tensors or not all(part in tensors for part in parts):
                continue
            first = next(other for other in tensors if other in parts)
            computed.setdefault(first, []).append(Stored(base, Computed(tuple(tensors[p] for p in parts), compute)))
            raw |= dict.fromkeys(parts, f"part of {base}, which is measured as it is used")
            break
        else:
            if ".parametrizations." in f".{name}":
                raw.setdefault(name, "part of a parametrization: give the torch module, which is measured as used")
    return computed, raw


def _recipes(name: str) -> Iterator[tuple[str, tuple[str, ...], Callable[..., Array]]]:
    """(name of the weight, names of its parts, how to compute it) for which `name` may be the first part."""
    if name.endswith("_v"):
        base = name.removesuffix("_v")
        yield base, (name, f"{base}_g"), _weight_norm
    if name.endswith("_orig"):
        base = name.removesuffix("_orig")
        yield base, (name, f"{base}_mask"), np.multiply
        yield base, (name, f"{base}_u", f"{base}_v"), _spectral_norm
    head, inside, tail = f".{name}".rpartition(".parametrizations.")
    weight, _, leaf = tail.rpartition(".")
    where = f"{head}{inside}{weight}"[1:]
    if inside and leaf == "original1":
        yield f"{head}.{weight}"[1:], (name, f"{where}.original0"), _weight_norm
    if inside and leaf == "original":
        yield f"{head}.{weight}"[1:], (name, f"{where}.0._u", f"{where}.0._v"), _spectral_norm


def _weight_norm(direction: Array, size: Array) -> Array:
    """Each slice of the direction, along the dimension that `size` has, at that length."""
    others = tuple(axis for axis in range(direction.ndim) if size.ndim != direction.ndim or size.shape[axis] == 1)
    return direction * (size / np.sqrt(np.sum(direction**2, axis=others, keepdims=True)))


def _spectral_norm(weight: Array, left: Array, right: Array) -> Array:
    """The weight over the estimate of its largest singular value."""
    axis = 0 if weight.shape[0] == len(left) and weight[0].size == len(right) else 1
    return weight / (left @ np.moveaxis(weight, axis, 0).reshape(len(left), -1) @ right)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
