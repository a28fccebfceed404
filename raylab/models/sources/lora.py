"""LoRA adapters in PEFT's format: the low-rank updates of layers, alone and merged into a base model.

Hu et al. 2021, arXiv:2106.09685: Delta W = scale B A with scale = lora_alpha / r, or lora_alpha / sqrt(r) (rsLoRA,
arXiv:2312.03732). An adapter is adapter_config.json beside adapter_model.safetensors (or .bin), whose tensors are
base_model.model.LAYER.lora_A.weight (r, in) and lora_B.weight (out, r); of embeddings lora_embedding_A (r, number) and
lora_embedding_B (size, r); of convolutions lora_A (r, in, height, width) and lora_B (out, r, 1, 1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.models.sources.files import ADAPTER_CONFIG, Files, read_json
from raylab.types import Array, digest

PREFIX = "base_model.model."
PART = re.compile(r"(?P<layer>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?")
BIAS = re.compile(r".+\.lora_B\.bias")  # belongs to the bias of a layer, which is not measured
# What changes more than W + scale B A, or another tensor than a layer's weight.
UNSUPPORTED = (
    "use_dora", "use_qalora", "use_bdlora", "trainable_token_indices", "target_parameters", "layer_replication",
    "alora_invocation_tokens", "arrow_config", "velora_config", "monteclora_config",
)  # fmt: skip
# Ways to begin that leave the base as it was. Others (PiSSA, OLoRA, CorDA, LoftQ) take a part out of W: then W of the
# published base plus the update is not what was trained.
PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True, eq=False)
class LowRankTensor:
    """scale B A of one layer, kept as its factors."""

    shape: tuple[int, ...]  # as the base stores the weight
    A: Any
    B: Any
    scale: float
    transposed: bool  # the base stores (in, out): embeddings, and Hugging Face's Conv1D

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64: rounded to fewer digits, the product would have full rank."""
        return np.dtype(np.float64)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def factors(self) -> tuple[Array, Array]:
        """(rows, r) and (r, columns) in float64, read now; the scale is in the first. Their product is the tensor.

        Of a convolution it is the tensor reshaped to out x (in * height * width).
        """
        A, B = _numbers(self.A), _numbers(self.B)
        A, B = A.reshape(len(A), -1), B.reshape(len(B), -1)
        return (A.T * self.scale, B.T) if self.transposed else (B * self.scale, A)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a product of factors is always a new array")
        left, right = self.factors
        return (left @ right).reshape(self.shape).astype(dtype or self.dtype, copy=False)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that has been read: updates by the name of their layer, and whole tensors (modules_to_save)."""

    updates: Mapping[str, LowRankTensor]
    whole: Mapping[str, Any]  # by the name of the tensor that each takes the place of
    config: Mapping[str, Any]
    files: Files
    path: Path

    def digest(self) -> str:
        """Digest of the tensors' file and of what the configuration says about scales."""
        keys = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
        return digest([self.files.digest(), {key: self.config.get(key) for key in keys}])

    def alone(self) -> dict[str, Any]:
        """Name -> update, named as the base's weight. What replaces a tensor as a whole is marked as such."""
        updates = {f"{layer}.weight": tensor for layer, tensor in self.updates.items()}
        whole = {name.removesuffix(".weight"): tensor for name, tensor in self.whole.items()}
        return updates | {f"{name}.modules_to_save.weight": one for name, one in whole.items() if one.ndim > 1}


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (path / ADAPTER_CONFIG).is_file()


def open_adapter(folder: Path) -> Adapter:
    """Read the configuration and the headers of an adapter.

    Raises UserError where it is not LoRA, or a kind of LoRA that is more than W + scale B A (DoRA and others).
    """
    if not is_adapter(folder):
        raise UserError(f"{folder} has no {ADAPTER_CONFIG}: give the folder of a LoRA adapter as PEFT saves it.")
    config = read_json(folder / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder} is an adapter of the kind {config.get('peft_type')}, not LORA: {_merge_there}")
    if used := [key for key in UNSUPPORTED if config.get(key)]:
        raise UserError(f"{folder} has {used[0]}, which is more than W + scale B A: {_merge_there}")
    files = _weights(folder)
    parts, whole = _sorted_out(files.open()[0], folder)
    updates = {layer: _update(layer, found, config, folder) for layer, found in parts.items()}
    return Adapter(updates, whole, config, files, folder)


_merge_there = "merge it with peft (merge_and_unload), save the result, and give that folder."


def _weights(folder: Path) -> Files:
    safetensors, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    if safetensors.is_file():
        return Files("safetensors", (safetensors,))
    if pickled.is_file():
        return Files("torch", (pickled,))
    raise UserError(f"{folder} has no adapter_model.safetensors (nor .bin): copy it there.")


Parts = dict[str, tuple[bool, Any]]  # side ("A", "B") -> whether of an embedding, tensor


def _sorted_out(tensors: Mapping[str, Any], folder: Path) -> tuple[dict[str, Parts], dict[str, Any]]:
    parts: dict[str, Parts] = {}
    whole: dict[str, Any] = {}
    for full, tensor in tensors.items():
        name = full.removeprefix(PREFIX)
        if match := PART.fullmatch(name):
            parts.setdefault(match["layer"], {})[match["side"]] = (bool(match["embedding"]), tensor)
        elif BIAS.fullmatch(name):
            continue
        elif "lora_" in name or "token_adapter" in name:
            raise UserError(f"{folder} holds '{full}', which is more than W + scale B A: {_merge_there}")
        else:
            whole[name.replace(".base_layer.", ".")] = tensor
    if not parts:
        raise UserError(f"{folder} holds no lora_A and lora_B: give a LoRA adapter as PEFT saves it.")
    return parts, whole


def _update(layer: str, parts: Parts, config: Mapping[str, Any], folder: Path) -> LowRankTensor:
    """One layer's update. Raises UserError where its factors do not fit each other or the configuration."""
    if len(parts) < 2:
        raise UserError(f"{folder} holds lora_{min(parts)} of '{layer}' without the other factor: save it again.")
    (embedding, A), (_, B) = parts["A"], parts["B"]
    rank = _patterned("rank_pattern", layer, config, config.get("r", 8))
    if A.shape[0] != rank or B.shape[1] != rank or A.ndim != B.ndim or math.prod(B.shape[2:]) != 1:
        shapes = f"A {list(A.shape)} and B {list(B.shape)}"
        raise UserError(f"{folder}: the factors of '{layer}', {shapes}, are none of rank r={rank}: {_merge_there}")
    alpha = _patterned("alpha_pattern", layer, config, config.get("lora_alpha", 8))
    transposed = embedding or (A.ndim == 2 and bool(config.get("fan_in_fan_out")))
    shape = (A.shape[1], B.shape[0]) if transposed else (B.shape[0], *A.shape[1:])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LowRankTensor(tuple(shape), A, B, float(scale), transposed)


def _patterned(key: str, layer: str, config: Mapping[str, Any], otherwise: float) -> float:
    """The value of the first pattern that a layer's name ends with, as PEFT matches (get_pattern_key)."""
    patterns = config.get(key) or {}
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer)), otherwise)


def _numbers(tensor: Any) -> Array:
    """A factor, of a file or of torch, in float64."""
    return tensor.detach().cpu().double().numpy() if hasattr(tensor, "detach") else np.asarray(tensor, np.float64)
