"""What a tensor is: by the class of its module where there is one, else by its name and shape.

The names decide what the classes do not, so that a module and its state dict give the same numbers. Two things a state
dict cannot tell: a bilinear weight, which it takes for a conv1d, and the groups of a convolution that is not depthwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

# Class name, anywhere in the inheritance of the module, to the kind of its `weight`.
KINDS = {
    "Linear": "linear",
    "Conv1D": "hf_conv1d",  # Hugging Face's: a transposed linear layer
    "Embedding": "embedding",
    "EmbeddingBag": "embedding",
    "Bilinear": "bilinear",
    **{f"Conv{n}d": f"conv{n}d" for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": f"conv_transpose{n}d" for n in (1, 2, 3)},
}
NO_MATRIX = "tensor"  # the kind of what stands for no matrix, and is skipped
DIMENSIONS = dict.fromkeys(KINDS.values(), 2) | {"bilinear": 3}
DIMENSIONS |= {f"{conv}{n}d": n + 2 for conv in ("conv", "conv_transpose") for n in (1, 2, 3)}

RECURRENT = {"LSTM": "lstm", "LSTMCell": "lstm", "GRU": "gru", "GRUCell": "gru", "RNN": "rnn", "RNNCell": "rnn"}
_RECURRENT_NAME = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?")
_EMBEDDING_NAME = re.compile(r"(^|_)(embed|embedding|embeddings|wte|wpe)(_|$)")
_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")  # of torch's MultiheadAttention
_EXPERT_NAME = re.compile(r"expert|(^|[._])moe([._]|$)")
_FUSED_EXPERTS = ("gate_up_proj", "gate_proj", "up_proj", "down_proj", "input_linear", "output_linear")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in a torch module: its module and those around it, nearest first. Empty for a mapping."""

    modules: tuple[Any, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that the tensor's module inherits from."""
        return tuple(c.__name__ for c in type(self.modules[0]).__mro__) if self.modules else ()

    def number(self, *names: str) -> int | None:
        """The nearest whole number of one of those names, of a module or its config."""
        for module in self.modules:
            for holder in (module, getattr(module, "config", None)):
                for name in names:
                    value = getattr(holder, name, None)
                    if isinstance(value, int) and not isinstance(value, bool):
                        return value
        return None

    def flag(self, name: str) -> bool | None:
        """The nearest true or false of that name."""
        values = (getattr(module, name, None) for module in self.modules)
        return next((value for value in values if isinstance(value, bool)), None)

    def within(self, *classes: str) -> bool:
        """Whether one of the modules around the tensor is of a class of such a name."""
        return any(type(module).__name__ in classes for module in self.modules)


NOWHERE = Place()


def layer_name(name: str) -> str:
    """The name of the layer whose tensor has this name in the state dict."""
    return name.removesuffix(".weight")


def kind_of(name: str, shape: Sequence[int], place: Place, bare: bool) -> str | None:
    """The kind of a tensor of two or more dimensions, or None where it stands for no matrix (`why_no_matrix`).

    bare: the names come from a mapping that does not end them in "weight", so that any tensor may be a convolution.
    """
    leaf = name.rpartition(".")[2]
    kind = next((KINDS[c] for c in place.classes if c in KINDS), None) if leaf == "weight" else None
    if kind and DIMENSIONS[kind] == len(shape):
        return kind
    if is_expert_tensor(name, shape, place):
        return None if leaf.endswith("bias") else "expert"
    return _matrix_kind(name, leaf, place) if len(shape) == 2 else _tensor_kind(leaf, shape, bare)


def why_no_matrix(name: str, shape: Sequence[int]) -> str:
    """In words, why `kind_of` is None."""
    if name.endswith("bias"):
        return "biases of experts: a vector each"
    if len(squeezed(shape)) < 2:
        return "a vector: all of its dimensions but one are 1"
    return f"{len(shape)} dimensions, and by its name no convolution and no experts"


def is_convolution(kind: str) -> bool:
    """Whether a layer of this kind has a kernel: the dimensions after the first two."""
    return kind.startswith("conv")


def is_expert_tensor(name: str, shape: Sequence[int], place: Place) -> bool:
    """Whether the first dimension counts the experts of a mixture: (experts, a, b), or biases (experts, a)."""
    parent, _, leaf = layer_name(name).rpartition(".")
    by_name = bool(_EXPERT_NAME.search(name.lower())) and "conv" not in leaf
    by_class = any("Expert" in c for c in place.classes)
    if len(shape) == 2:  # a linear layer of one expert is a matrix like any other
        return leaf.endswith("bias") and (by_class or "expert" in parent.lower())
    return len(shape) == 3 and (by_class or by_name or leaf in _FUSED_EXPERTS)


def groups_of(kind: str, shape: Sequence[int], place: Place) -> int:
    """The groups of a convolution. In a mapping one with one channel a group is taken for depthwise."""
    if not is_convolution(kind):
        return 1
    if place.modules:
        return place.number("groups") or 1
    return shape[0] if shape[1] == 1 else 1


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """The dimensions that are not 1."""
    return tuple(size for size in shape if size != 1)


def why_unreadable(tensor: Any) -> str | None:
    """Why a tensor has no real weights to read, or None. Reads its description, never its elements."""
    return why_without_values(tensor) or _not_floating(getattr(tensor, "dtype", None))


def why_without_values(tensor: Any) -> str | None:
    """Why there is no array of a tensor's elements, or None."""
    if is_uninitialised(tensor):
        return "not initialised: run the model once on data"
    if prod(tensor.shape) == 0:
        return "empty: a dimension is 0"
    if getattr(tensor, "is_meta", False):
        return "on the meta device: without values"
    if getattr(tensor, "is_sparse", False) or "sparse" in str(getattr(tensor, "layout", "")) or hasattr(tensor, "nnz"):
        return "sparse: make it dense to measure it"
    return None


def is_uninitialised(tensor: Any) -> bool:
    """Whether a tensor is a parameter of a lazy torch module that has no shape yet."""
    return any(c.__name__ == "UninitializedTensorMixin" for c in type(tensor).__mro__)


def _matrix_kind(name: str, leaf: str, place: Place) -> str:
    if _RECURRENT_NAME.fullmatch(leaf):
        return next((RECURRENT[c] for c in place.classes if c in RECURRENT), "recurrent")
    if leaf == "in_proj_weight":
        return "qkv"
    if leaf in _PROJECTIONS:
        return "linear"
    if place.modules:
        return "matrix"
    return "embedding" if _EMBEDDING_NAME.search(layer_name(name).rpartition(".")[2]) else "linear"


def _tensor_kind(leaf: str, shape: Sequence[int], bare: bool) -> str | None:
    is_matrix = len(squeezed(shape)) == 2
    if bare and len(shape) == 3 and is_matrix:
        return "matrix"
    if (bare or leaf == "weight") and len(shape) <= 5:
        return f"conv{len(shape) - 2}d"
    return "matrix" if is_matrix else None


def _not_floating(dtype: Any) -> str | None:
    """Why elements of a dtype are no real weights (an index, a mask, packed bits, complex numbers), or None."""
    # By name, which numpy, ml_dtypes and torch spell alike: bfloat16 is a void type to numpy.
    name = getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")
    if name.startswith(("float8", "float4")):
        return f"dtype {name} is quantised: its scales are elsewhere"
    return None if dtype is None or name.startswith(("float", "bfloat")) else f"dtype {name} is not floating point"
