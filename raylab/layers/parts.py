"""Tensors that hold several matrices side by side: the experts of a mixture, and fused projections and gates.

Experts are layers of their own; the others stay whole unless they are asked for in parts. A part is cut only where the
layout is known: a wrong cut would look like an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from raylab.layers.kinds import Place, layer_name, squeezed
from raylab.layers.matrices import to_numpy
from raylab.types import Array

QKV = ("q", "k", "v")
GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}  # in torch's order, one block of rows each
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads")
_HEAD_SIZE = ("head_dim", "head_size", "dim_head")
_BLOCKS = ("qkv", "qkv_proj", "Wqkv", "to_qkv", "c_attn")  # all of q, then all of k, then all of v
# The exceptions among those names: head by head, as in `query_key_value`; and spread over four devices.
_WOVEN_CLASSES = ("MiniMaxLightningAttention",)
_UNKNOWN_CLASSES = ("CodeGenAttention",)


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a tensor: reshape it to `via` if given, index it, reshape the outcome to `shape`."""

    label: str  # "[q]", what the name of the part ends in
    index: tuple[int | slice, ...]
    shape: tuple[int, ...]
    via: tuple[int, ...] | None = None

    def of(self, tensor: Any) -> Any:
        """The part: a view where strides allow it. A lazy tensor stays one."""
        if hasattr(tensor, "detach") or isinstance(tensor, np.ndarray):
            return self._taken(tensor)
        return LazyCut(tensor, self)

    def _taken(self, tensor: Any) -> Any:
        return (tensor.reshape(self.via) if self.via else tensor)[self.index].reshape(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class LazyCut:
    """A part of a lazy tensor, read when it is asked for. One that can be indexed is read in part only."""

    tensor: Any
    cut: Cut

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        return self.cut.shape

    @property
    def dtype(self) -> Any:
        """Of the whole."""
        return self.tensor.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if hasattr(self.tensor, "__getitem__") and self.cut.via is None:
            part = to_numpy(self.tensor[self.cut.index]).reshape(self.cut.shape)
        else:
            part = self.cut._taken(to_numpy(self.tensor))
        return part if dtype is None else part.astype(dtype)


def cuts(name: str, kind: str, shape: tuple[int, ...], place: Place, split: bool) -> list[Cut]:
    """The layers that a tensor holds, none where it is one as it lies. name: in the state dict.

    They tile the tensor. split: fused projections and gates too. Labels: "[3]" an expert, "[q]" a part, "[3][gate]".
    """
    if kind == "expert":
        parts = _gate_and_up(name, shape[1:], place) if split else []
        return [cut for i in range(shape[0]) for cut in _of_expert(i, shape[1:], parts)]
    if kind == "matrix" and len(shape) > 2:
        return [Cut("", (slice(None),) * len(shape), squeezed(shape))]
    return _parts(name, kind, shape, place) if split and len(shape) == 2 else []


def _of_expert(i: int, shape: tuple[int, ...], parts: Sequence[Cut]) -> list[Cut]:
    if not parts:
        return [Cut(f"[{i}]", (i,), shape)]
    return [Cut(f"[{i}]{part.label}", (i, *part.index), part.shape) for part in parts]


def _parts(name: str, kind: str, shape: tuple[int, ...], place: Place) -> list[Cut]:
    leaf = layer_name(name).rpartition(".")[2]
    if kind in GATES and "_hr" not in leaf:
        return _blocks(shape, 0, GATES[kind], [shape[0] // len(GATES[kind])] * len(GATES[kind]))
    if kind == "qkv":
        return _blocks(shape, 0, QKV, [shape[0] // 3] * 3)
    if _is_woven(leaf, place):
        return _woven(shape, place)
    if leaf in _BLOCKS and not place.within(*_UNKNOWN_CLASSES):
        return _queries_keys_values(name, leaf, kind, shape, place)
    if leaf == "gate_up_proj" and shape[0] % 2 == 0:
        return _blocks(shape, 0, ("gate", "up"), [shape[0] // 2] * 2)
    return []


def _queries_keys_values(name: str, leaf: str, kind: str, shape: tuple[int, ...], place: Place) -> list[Cut]:
    if leaf == "qkv_proj" and not place.modules:  # Phi-3's is in blocks, CodeGen's is not: the name does not say
        return []
    # GPT-2's c_attn lies transposed; in a mapping only its shape says so.
    axis = int(kind == "hf_conv1d" or (leaf == "c_attn" and shape[1] == 3 * shape[0]))
    rows, columns = shape[axis], shape[1 - axis]
    if leaf == "c_attn" and rows == 2 * columns and "crossattention" in name:  # queries come from elsewhere
        return _blocks(shape, axis, QKV[1:], [columns, columns])
    keys, heads = place.number(*_KEY_HEADS), place.number(*_HEADS)
    if heads and keys and keys != heads and rows % (heads + 2 * keys) == 0:
        size = place.number(*_HEAD_SIZE) or rows // (heads + 2 * keys)
        sizes = [heads * size, keys * size, keys * size]
    else:
        sizes = [rows // 3] * 3 if rows == 3 * columns or rows == 3 * _width(place) else []
    return _blocks(shape, axis, QKV, sizes) if sum(sizes) == rows else []


def _is_woven(leaf: str, place: Place) -> bool:
    """Whether a fused projection is known to go head by head."""
    if leaf == "qkv":
        return place.flag("head_first") is True  # timm's, of some convolutional transformers
    return leaf == "query_key_value" or (leaf == "qkv_proj" and place.within(*_WOVEN_CLASSES))


def _width(place: Place) -> int:
    """The width of all heads together, 0 where the modules do not say."""
    return (place.number(*_HEADS) or 0) * (place.number(*_HEAD_SIZE) or 0)


def _woven(shape: tuple[int, ...], place: Place) -> list[Cut]:
    """q, k and v of each head in turn."""
    heads = place.number(*_HEADS)
    size = place.number(*_HEAD_SIZE) or (shape[0] // (3 * heads) if heads else 0)
    if not heads or shape[0] != 3 * heads * size:
        return []
    every = slice(None)
    part, via = (shape[0] // 3, shape[1]), (heads, 3, size, shape[1])
    return [Cut(f"[{label}]", (every, i), part, via) for i, label in enumerate(QKV)]


def _gate_and_up(name: str, shape: tuple[int, ...], place: Place) -> list[Cut]:
    """Of one expert: halves of what it gives, or every other one of them (gpt-oss)."""
    axis = _output_axis(shape, place)
    if not name.endswith("gate_up_proj") or axis is None or shape[axis] % 2:
        return []
    size = shape[axis] // 2
    if place.flag("is_concatenated") is not False:
        return _blocks(shape, axis, ("gate", "up"), [size, size])
    steps = [("gate", slice(0, None, 2)), ("up", slice(1, None, 2))]
    return [Cut(f"[{label}]", *_along(shape, axis, step, size)) for label, step in steps]


def _output_axis(shape: tuple[int, ...], place: Place) -> int | None:
    """Which dimension of an expert's matrix is what it gives; None where nothing says."""
    transposed = place.flag("is_transposed")
    if transposed is not None:
        return int(transposed)
    hidden = place.number("hidden_size", "hidden_dim")
    return 1 - shape.index(hidden) if list(shape).count(hidden or 0) == 1 and hidden else None


def _blocks(shape: tuple[int, ...], axis: int, labels: Sequence[str], sizes: Sequence[int]) -> list[Cut]:
    """Consecutive pieces along a dimension; none where they do not fill it."""
    if sum(sizes) != shape[axis] or not all(sizes):
        return []
    ends = list(accumulate(sizes))
    pieces = zip(labels, sizes, ends, strict=True)
    return [Cut(f"[{label}]", *_along(shape, axis, slice(end - size, end), size)) for label, size, end in pieces]


def _along(
    shape: tuple[int, ...], axis: int, piece: slice, size: int
) -> tuple[tuple[int | slice, ...], tuple[int, ...]]:
    """The index of a piece along a dimension of a matrix, and the shape of what it takes."""
    every = slice(None)
    return ((piece, every), (size, shape[1])) if axis == 0 else ((every, piece), (shape[0], size))
