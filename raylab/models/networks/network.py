"""The noun for a model that can be run: an architecture with its weights, how it is built anew, what it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import to_numpy
from raylab.models.sources import digests
from raylab.types import Array, digest

if TYPE_CHECKING:
    import torch
    from torch import nn

FREQUENCIES = "inv_freq"  # buffers of rotary position embeddings


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A model to be evaluated. Its weights are numpy arrays, which Ray keeps once a node and gives out uncopied."""

    name: str
    origin: str  # where the weights came from, in words
    digest: str  # of the weights, and of theta_0
    skeleton: Any  # the torch module, with nothing in its parameters
    tensors: Mapping[str, Array]  # parameters and buffers by name, floats as float32
    anew: Callable[[], Any] | None  # builds the architecture as its library initialises it
    initial: Mapping[str, Array] | None = None  # theta_0 by the names of `tensors`, where it was published
    preprocessing: Mapping[str, Any] | None = None  # of images: a data config of timm's
    tokenizer: str | None = None  # of texts: a folder or hub id
    context: int | None = None  # of texts: tokens that the model has positions for; None: it does not say
    download: bool = False

    def module(self, device: str = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
        """The torch module in evaluation mode. On a CPU its parameters are the arrays: never write to them."""
        import torch

        from raylab.models.kernels import as_tensor

        made: dict[int, nn.Parameter] = {}

        def tensor(name: str) -> torch.Tensor:
            whole = as_tensor(self.tensors[name]).to(device)
            # Of positions 8 bits of an angle leave little: transformers keeps them too, where model.to(dtype) does not.
            lower = dtype is not None and whole.is_floating_point() and not name.endswith(FREQUENCIES)
            return whole.to(dtype) if lower else whole

        model = copy.deepcopy(self.skeleton)
        for owner, leaf, name, old in list(_slots(model, "_parameters")):
            if id(old) not in made:
                made[id(old)] = torch.nn.Parameter(tensor(name), requires_grad=False)
            owner._parameters[leaf] = made[id(old)]
        for owner, leaf, name, _ in list(_slots(model, "_buffers")):
            owner._buffers[leaf] = tensor(name).clone()  # a pass may write to them
        return model.eval()


def of_module(name: str, model: Any, anew: Callable[[], Any] | None, **known: Any) -> Network:
    """The network of a torch module in memory. known: the other fields of Network, where they are known."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise UserError(f"The model {name} is a {type(model).__name__}: a torch module is needed to evaluate it.")
    for parameter, weights in model.named_parameters():
        if weights.dtype == torch.float64:
            raise UserError(
                f"{name} has float64 weights ({parameter}), and would be evaluated in float32: say .float()."
            )
    config: Any = getattr(model, "config", None)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # of generation; here it would only cost memory
    positions = (getattr(config, name, None) for name in ("n_positions", "max_position_embeddings", "n_ctx"))
    known.setdefault("context", next((number for number in positions if isinstance(number, int)), None))
    known.setdefault("origin", f"{type(model).__module__}.{type(model).__name__}")
    known.setdefault("preprocessing", getattr(model, "preprocessing", None))
    skeleton, tensors = _taken_apart(model)
    # Of buffers too, unlike that of a model whose weights alone are measured: they have a say in what it gives.
    known["digest"] = known.get("digest") or digests.of_tensors(tensors.items())
    known["digest"] = digest([known["digest"], _described(model)])
    if known.get("initial"):
        known["digest"] = digest([known["digest"], digests.of_tensors(known["initial"].items())])
    return Network(name=name, skeleton=skeleton, tensors=tensors, anew=anew, **known)


def _described(model: nn.Module) -> str:
    """The architecture in words: the same weights with another activation are another model."""
    config: Any = getattr(model, "config", None)
    kept = config.to_dict() if hasattr(config, "to_dict") else {}
    incidental = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures")
    return f"{model}{sorted((key, str(value)) for key, value in kept.items() if key not in incidental)}"


def _taken_apart(model: nn.Module) -> tuple[nn.Module, dict[str, Array]]:
    """The module without its numbers, which can be pickled in no time, and its numbers."""
    import torch

    memo: dict[int, Any] = {}
    arrays: dict[int, Array] = {}  # one of each tensor, however many names it has: Ray keeps each object once
    tensors: dict[str, Array] = {}
    for slot in ("_parameters", "_buffers"):
        for _, _, name, tensor in _slots(model, slot):
            if id(tensor) not in memo:
                array = to_numpy(tensor)
                arrays[id(tensor)] = array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
                empty = torch.empty_like(tensor.data, device="meta")
                memo[id(tensor)] = torch.nn.Parameter(empty, requires_grad=False) if slot == "_parameters" else empty
            tensors[name] = arrays[id(tensor)]
    return copy.deepcopy(model, memo), tensors


def _slots(model: nn.Module, kind: str) -> Iterator[tuple[nn.Module, str, str, Any]]:
    """(module, attribute, full name, tensor) of every parameter or buffer, those that are shared each time."""
    for path, module in model.named_modules():
        for leaf, tensor in getattr(module, kind).items():
            if tensor is not None:
                yield module, leaf, f"{path}.{leaf}" if path else leaf, tensor
