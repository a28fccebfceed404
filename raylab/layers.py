"""Which tensors of a model are layers, and which matrices a layer stands for.

A layer is a weight tensor of two or more dimensions. The kinds that are known are measured, all others are
listed as skipped with the reason, because a silent gap in a table of layers is worse than a visible one.
Nothing here imports torch: a module is recognised by its methods, a layer by the name of its class.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.registry import suggest
from raylab.types import Array, Layer, SpectralOptions

# Class name, anywhere in the inheritance of a module, to kind. Hugging Face's Conv1D is a transposed linear layer.
KINDS = {"Linear": "linear", "Conv1D": "hf_conv1d", "Conv2d": "conv2d", "Embedding": "embedding"}
CONV_TREATMENTS = ("pooled", "slices", "reshape")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A layer that is not measured, and why."""

    layer: Layer
    reason: str


def find_layers(model: Any) -> tuple[list[Layer], list[Skipped]]:
    """Every layer of a torch module or of a mapping name -> tensor, in order of registration.

    A tensor that two layers share (tied weights) is counted once, under its first name. Returns the layers of a known
    kind whose weights are real and floating, and the others with the reason why they are left out. Raises UserError for
    what is neither module nor mapping.
    """
    found: list[Layer] = []
    skipped: list[Skipped] = []
    seen: dict[tuple[object, ...], str] = {}
    for index, (layer, tensor, kind) in enumerate(_candidates(model)):
        layer = replace(layer, index=index)
        first = seen.setdefault(_identity(tensor), layer.name)
        if first != layer.name:
            skipped.append(Skipped(layer, f"tied: the same tensor as {first}"))
        elif reason := _not_floating(tensor):
            skipped.append(Skipped(layer, reason))
        elif kind is None:
            skipped.append(Skipped(layer, f"{layer.kind} of {len(layer.shape)} dimensions is not supported"))
        else:
            found.append(layer)
    return found, skipped


def weights(model: Any) -> dict[str, Any]:
    """The tensor of every layer by the layer's name, as the model stores it (on its device, in its dtype)."""
    return {layer.name: tensor for layer, tensor, _ in _candidates(model)}


def select(layers: Sequence[Layer], patterns: Sequence[str]) -> list[Layer]:
    """The layers whose name matches one of the shell-style patterns ("fc*", "*.attn.*"), in their own order.

    Raises UserError for a pattern that matches nothing.
    """
    names = [layer.name for layer in layers]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"The pattern '{pattern}' matches no layer.{suggest(pattern, names)}")
    return [layer for layer in layers if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)]


def split_by_size(layers: Sequence[Layer], options: SpectralOptions) -> tuple[list[Layer], list[Skipped]]:
    """The layers within the limits of the options, and those outside with the limit that they break."""
    reasons = [(layer, why_too_large_or_small(layer, options)) for layer in layers]
    kept = [layer for layer, reason in reasons if reason is None]
    return kept, [Skipped(layer, reason) for layer, reason in reasons if reason is not None]


def why_too_large_or_small(layer: Layer, options: SpectralOptions) -> str | None:
    """The limit of the options that a layer breaks, in words, or None."""
    num_matrices, N, M = matrices_shape(layer, options.conv)
    num_evals = M if options.conv == "slices" else num_matrices * M
    if num_evals < options.min_evals:
        return f"{num_evals} eigenvalues are fewer than min_evals={options.min_evals}"
    if num_evals > options.max_evals:
        return f"{num_evals} eigenvalues are more than max_evals={options.max_evals}"
    if options.max_N < N:
        return f"N={N} is more than max_N={options.max_N}"
    return None


def matrices_shape(layer: Layer, conv: str = "pooled") -> tuple[int, int, int]:
    """(number of matrices, N, M) that a layer stands for; N the longer side."""
    if layer.kind == "conv2d":
        out, into, height, width = layer.shape
        if conv == "reshape":
            return _ordered(1, out, into * height * width)
        return _ordered(height * width, out, into)
    rows, columns = layer.shape
    return _ordered(1, rows, columns)


def as_matrices(weights: Array, layer: Layer, conv: str = "pooled") -> Array:
    """The matrices that a layer stands for, (matrices, rows, columns).

    linear, embedding, hf_conv1d: the tensor itself. conv2d (out, in, kh, kw), by `conv`: "pooled", the kh*kw slices
    times sqrt(1/2) (weightwatcher's default); "slices", the same slices times sqrt(kh*kw/2) (Martin, Peng & Mahoney
    2021, method 1); "reshape", one matrix out x (in*kh*kw), not scaled. Raises UserError for another treatment.
    """
    if conv not in CONV_TREATMENTS:
        raise UserError(f"Unknown treatment of convolutions conv={conv}.{suggest(conv, CONV_TREATMENTS)}")
    if tuple(weights.shape) != layer.shape:
        raise ValueError(f"layer {layer.name} has shape {layer.shape}, not {tuple(weights.shape)}")
    if layer.kind != "conv2d":
        return weights[None]
    out, into, height, width = layer.shape
    if conv == "reshape":
        return weights.reshape(1, out, -1)
    slices = weights.transpose(2, 3, 0, 1).reshape(height * width, out, into)
    return slices * np.sqrt((height * width if conv == "slices" else 1) / 2)


def _ordered(count: int, rows: int, columns: int) -> tuple[int, int, int]:
    return count, max(rows, columns), min(rows, columns)


def _candidates(model: Any) -> Iterator[tuple[Layer, Any, str | None]]:
    """Every tensor of two or more dimensions, with its kind, or None where the kind is unknown."""
    if isinstance(model, Mapping):
        for name, tensor in model.items():
            shape = tuple(getattr(tensor, "shape", ()))
            kind = {2: "linear", 4: "conv2d"}.get(len(shape))
            if len(shape) >= 2:
                yield Layer(str(name).removesuffix(".weight"), 0, kind or "tensor", shape), tensor, kind
    elif hasattr(model, "named_modules"):
        for path, module in model.named_modules():
            for name, tensor in module.named_parameters(recurse=False, remove_duplicate=False):
                yield from _candidate(path, module, name, tensor)
    else:
        raise UserError(f"A model is a torch module or a mapping of names to tensors, not {type(model).__name__}.")


def _candidate(path: str, module: Any, name: str, tensor: Any) -> Iterator[tuple[Layer, Any, str | None]]:
    if tensor.ndim < 2:
        return
    kind = next((KINDS[c.__name__] for c in type(module).__mro__ if c.__name__ in KINDS), None)
    known = kind if name == "weight" else None
    full = path if known and path else f"{path}.{name}".strip(".")
    yield Layer(full, 0, known or type(module).__name__, tuple(tensor.shape)), tensor, known


def _not_floating(tensor: Any) -> str | None:
    """Why the elements are no real weights (an index, a mask, packed bits, complex numbers), or None."""
    dtype = getattr(tensor, "dtype", None)
    # By name, which numpy, ml_dtypes and torch spell alike: bfloat16 is a void type to numpy.
    name = getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")
    return None if dtype is None or name.startswith(("float", "bfloat")) else f"dtype {name} is not floating point"


def _identity(tensor: Any) -> tuple[object, ...]:
    """The same for two names of one tensor: of one shape, at one place in memory."""
    if hasattr(tensor, "data_ptr"):
        place = tensor.data_ptr()
    else:
        place = getattr(tensor, "__array_interface__", {"data": (0, False)})["data"][0]
    return (place or id(tensor), *tensor.shape)
