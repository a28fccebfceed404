"""From a torch module or a mapping of names to tensors to its layers, and to what is left out and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raylab.errors import UserError
from raylab.layers.kinds import (
    NO_MATRIX,
    groups_of,
    is_uninitialised,
    kind_of,
    layer_name,
    why_no_matrix,
    why_unreadable,
)
from raylab.layers.matrices import matrices_shape
from raylab.layers.parts import cuts
from raylab.layers.stored import Stored, stored_tensors
from raylab.registry import suggest
from raylab.types import Layer, SpectralOptions


@dataclass(frozen=True, slots=True)
class Skipped:
    """A layer that is not measured, and why."""

    layer: Layer
    reason: str


def find_layers(model: Any, options: SpectralOptions | None = None) -> tuple[list[Layer], list[Skipped]]:
    """Every layer of a torch module or of a mapping name -> tensor, in order of registration.

    Together they are every parameter of two or more dimensions (of a mapping, every tensor), each once: as a layer, as
    its experts, as its parts (options.split), or skipped with the reason. A tensor that two layers share (tied weights)
    is measured under its first name. Names, shapes and dtypes are read, never elements, but for weights that a torch
    module computes (weight norm). Raises UserError for what is neither module nor mapping.
    """
    entries = list(_entries(model, options))
    found = [layer for layer, _, reason in entries if reason is None]
    return found, [Skipped(layer, reason) for layer, _, reason in entries if reason is not None]


def weights(model: Any, options: SpectralOptions | None = None) -> dict[str, Any]:
    """The tensor of every layer by the layer's name, as the model stores it (on its device, in its dtype).

    Experts and parts are views where they can be. With the same options the names are those of `find_layers`.
    """
    return {layer.name: tensor for layer, tensor, _ in _entries(model, options)}


def select(layers: Sequence[Layer], patterns: Sequence[str]) -> list[Layer]:
    """The layers whose name matches one of the shell-style patterns ("fc*", "*.attn.*"), in their own order.

    Brackets may be meant as they stand in a name, "*.c_attn[q]". Raises UserError for a pattern that matches nothing.
    """
    names = [layer.name for layer in layers]
    both = {pattern: (pattern, pattern.replace("[", "[[]")) for pattern in patterns}
    for pattern, forms in both.items():
        if not any(fnmatch.filter(names, form) for form in forms):
            raise UserError(f"The pattern '{pattern}' matches no layer.{suggest(pattern, names)}")
    every = [form for forms in both.values() for form in forms]
    return [layer for layer in layers if any(fnmatch.fnmatchcase(layer.name, form) for form in every)]


def measurable(
    model: Any, options: SpectralOptions, patterns: Sequence[str] = ("*",)
) -> tuple[list[Layer], list[Skipped]]:
    """The layers of a model that the patterns name and the options allow, and those they name and that are skipped.

    Raises UserError for a pattern that matches nothing, and for what is no model.
    """
    found, skipped = find_layers(model, options)
    chosen = {layer.name for layer in select([*found, *(item.layer for item in skipped)], patterns)}
    fitting, outside = split_by_size([layer for layer in found if layer.name in chosen], options)
    return fitting, sorted([item for item in skipped if item.layer.name in chosen] + outside, key=_place)


def _place(item: Skipped) -> int:
    return item.layer.index


def split_by_size(layers: Sequence[Layer], options: SpectralOptions) -> tuple[list[Layer], list[Skipped]]:
    """The layers within the limits of the options, and those outside with the limit that they break."""
    reasons = [(layer, why_too_large_or_small(layer, options)) for layer in layers]
    kept = [layer for layer, reason in reasons if reason is None]
    return kept, [Skipped(layer, reason) for layer, reason in reasons if reason is not None]


def why_too_large_or_small(layer: Layer, options: SpectralOptions) -> str | None:
    """The limit of the options that a layer breaks, in words, or None."""
    num_matrices, N, M = matrices_shape(layer, options.conv, options.groups)
    num_evals = M if options.conv == "slices" else num_matrices * M
    if options.min_evals is not None and num_evals < options.min_evals:
        return f"{num_evals} eigenvalues are fewer than min_evals={options.min_evals}"
    if options.max_evals is not None and num_evals > options.max_evals:
        return f"{num_evals} eigenvalues are more than max_evals={options.max_evals}"
    if options.max_N is not None and options.max_N < N:
        return f"N={N} is more than max_N={options.max_N}"
    return None


def _entries(model: Any, options: SpectralOptions | None) -> Iterator[tuple[Layer, Any, str | None]]:
    """Every layer with its tensor and the reason why it is skipped, numbered."""
    split = (options or SpectralOptions()).split
    bare = isinstance(model, Mapping) and not any(str(name).rpartition(".")[2] == "weight" for name in model)
    seen: dict[tuple[object, ...], str] = {}
    taken: dict[str, int] = {}
    index = 0
    for stored in stored_tensors(model):
        for layer, tensor, reason in _layers_of(stored, bare, split, seen):
            yield replace(layer, index=index, name=_distinct(layer.name, taken)), tensor, reason
            index += 1


def _distinct(name: str, taken: dict[str, int]) -> str:
    """The name, with a number where another layer has it: a mapping may hold both "fc" and "fc.weight"."""
    while name in taken:
        taken[name] += 1
        name = f"{name} ({taken[name]})"
    taken[name] = 1
    return name


def _layers_of(
    stored: Stored, bare: bool, split: bool, seen: dict[tuple[object, ...], str]
) -> Iterator[tuple[Layer, Any, str | None]]:
    name, tensor, place = stored.name, stored.tensor, stored.place
    shape = () if is_uninitialised(tensor) else tuple(tensor.shape)
    kind = kind_of(name, shape, place, bare) if shape else None
    reason = stored.reason or why_unreadable(tensor) or _tied(stored, seen)
    if kind is None:
        layer = Layer(layer_name(name), 0, NO_MATRIX, shape, parameter=name)
        yield layer, tensor, reason or why_no_matrix(name, shape)
        return
    layer = Layer(layer_name(name), 0, kind, shape, groups_of(kind, shape, place), name)
    pieces = [] if reason else cuts(name, kind, shape, place, split)
    if not pieces:
        yield layer, tensor, reason
    for cut in pieces:
        yield replace(layer, name=layer.name + cut.label, shape=cut.shape), cut.of(tensor), None


def _tied(stored: Stored, seen: dict[tuple[object, ...], str]) -> str | None:
    name = layer_name(stored.name)
    first = seen.setdefault(_identity(stored.tensor), name)
    return None if first == name else f"tied: the same tensor as {first}"


def _identity(tensor: Any) -> tuple[object, ...]:
    """The same for two names of one tensor: of one shape, at one place in memory."""
    if hasattr(tensor, "data_ptr"):
        place = tensor.data_ptr()
    else:
        place = getattr(tensor, "__array_interface__", {"data": (0, False)})["data"][0]
    return (place or id(tensor), *tensor.shape)
