"""A base model with an adapter in it: W + scale B A, made when a layer is read."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.models.sources.lora import PLAIN_BEGINNINGS, Adapter, LowRankTensor
from raylab.models.sources.naming import did_you_mean
from raylab.types import Array

MAX_PREFIX = 3  # components of a name
PLAIN = ("float64", "float32", "float16", "bfloat16")  # types whose numbers are the weights, without scales elsewhere


@dataclass(frozen=True, slots=True, eq=False)
class MergedTensor:
    """The sum of a base's weight and an update, of the base's shape."""

    base: Any
    update: LowRankTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the base's weight."""
        return self.update.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64 where the base is, else float32: the sum is not rounded to half precision."""
        return np.dtype(np.float64 if _type_name(self.base) == "float64" else np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a merged weight is always a new array")
        left, right = (factor.astype(self.dtype, copy=False) for factor in self.update.factors)
        total = (left @ right).reshape(self.shape)
        total += _array(self.base)
        return total.astype(dtype or self.dtype, copy=False)


def merged(model: Any, adapter: Adapter) -> Any:
    """The base (a mapping, or a torch module, which is copied) with every update and every whole tensor in its place.

    Raises UserError where an adapted layer is not in the base, has another shape or is quantised there, or was trained
    on a base that its beginning had changed (PiSSA and the like).
    """
    beginning = adapter.config.get("init_lora_weights")
    if beginning not in PLAIN_BEGINNINGS:
        raise UserError(
            f"{adapter.path} began with init_lora_weights={beginning}, which changes the base too: convert it with "
            "peft (path_initial_model_for_weight_conversion), or give the merged model."
        )
    base = dict(model) if isinstance(model, Mapping) else dict(model.named_parameters(remove_duplicate=False))
    rename = _renaming([f"{layer}.weight" for layer in adapter.updates], base, adapter)
    changed: dict[str, Any] = {}
    for layer, update in adapter.updates.items():
        name = rename(f"{layer}.weight")
        if _type_name(base[name]) not in PLAIN:
            raise UserError(
                f"'{name}' is quantised in the base ({_type_name(base[name])}), without the scales that {adapter.path} "
                "would be added at: give a base in floating point."
            )
        changed[name] = MergedTensor(base[name], _oriented(update, name, base[name], adapter))
    for name, tensor in adapter.whole.items():  # a head that the base lacks keeps its own name
        changed[rename(name) if rename(name) in base else name] = tensor
    return base | changed if isinstance(model, Mapping) else _with(model, changed)


def _type_name(tensor: Any) -> str:
    """As numpy and torch spell it: "bfloat16"."""
    return getattr(tensor.dtype, "name", None) or str(tensor.dtype).removeprefix("torch.")


def _renaming(names: Sequence[str], base: Mapping[str, Any], adapter: Adapter) -> Callable[[str], str]:
    """Name in the adapter -> name in the base. One of the two may have a prefix more ("transformer.")."""
    for depth in range(MAX_PREFIX + 1):
        shorten = functools.partial(_without_first, depth=depth)
        if all(shorten(name) in base for name in names):
            return shorten
    for prefix in sorted({".".join(name.split(".")[:depth]) for depth in range(1, MAX_PREFIX + 1) for name in base}):
        if all(f"{prefix}.{name}" in base for name in names):
            return f"{prefix}.{{}}".format
    missing = next(name for name in names if name not in base)
    raise UserError(f"The base has no '{missing}', which {adapter.path} adapts.{did_you_mean(missing, base)}")


def _without_first(name: str, depth: int) -> str:
    """A name without its first components, as far as it has so many."""
    return ".".join(name.split(".")[depth:]) if name.count(".") > depth else name


def _oriented(update: LowRankTensor, name: str, base: Any, adapter: Adapter) -> LowRankTensor:
    """The update as the base stores the layer: as PEFT does, (in, out) or (out, in) is the base's to say."""
    shape = tuple(base.shape)
    if update.shape == shape:
        return update
    if update.ndim == 2 and update.shape[::-1] == shape:
        return replace(update, shape=shape, transposed=not update.transposed)
    raise UserError(
        f"'{name}' has shape {list(shape)} in the base and {list(update.shape)} in {adapter.path}: give the base "
        "that the adapter was trained on."
    )


def _with(module: Any, changed: Mapping[str, Any]) -> Any:
    """A copy of a torch module with other parameters."""
    import torch

    module = copy.deepcopy(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, tensor in changed.items():
            if name not in parameters:
                raise UserError(f"The base has no '{name}', which the adapter holds: give a base with that module.")
            parameters[name].data = torch.from_numpy(_array(tensor).copy()).to(parameters[name].device)
    return module


def _array(tensor: Any) -> Array:
    """A tensor of a file, of numpy or of torch as an array; half precision of torch becomes float32."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.element_size() < 4 else tensor).numpy()
