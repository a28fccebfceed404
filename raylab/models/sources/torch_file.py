"""Files of torch.save: the state dict inside, with no code run. torch is imported when one is opened."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raylab.errors import UserError, first_line
from raylab.models.sources.naming import unwrapped

# Where training scripts put the state dict, the first that is there.
HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "params_ema")
AVERAGES = ("ema", "state_dict_ema", "model_ema", "ema_state_dict", "ema_model")
NO_WEIGHTS = re.compile(r"optim|sched|scaler|rng|generator_state|callbacks|loops|hyper_parameters|args|config")
MAX_DEPTH = 8


def open_files(paths: Iterable[Path]) -> tuple[dict[str, Any], str]:
    """The tensors of one file or of all shards, mapped from disk where the file allows, and the place inside it.

    The place is that of the state dict in the last file: "state_dict", "model.ema", or "" for the file as a whole.
    Raises UserError for a file that is damaged, holds more than tensors, or holds no state dict.
    """
    tensors: dict[str, Any] = {}
    place = ""
    for path in paths:
        found, place = state_dict(_load(path), path)
        if doubled := tensors.keys() & found.keys():
            raise UserError(f"{path} holds '{min(doubled)}' as another file does: name the one file that is meant.")
        tensors |= found
    return {new: tensors[old] for old, new in unwrapped(tensors).items()}, place


def state_dict(content: Any, path: Path) -> tuple[dict[str, Any], str]:
    """Name -> tensor from what a file holds, and the keys that lead there. Nested mappings become dotted names."""
    keys: list[str] = []
    while isinstance(content, Mapping) and len(keys) < MAX_DEPTH:
        key = next((key for key in (*HOLDERS, *AVERAGES) if isinstance(content.get(key), Mapping)), None)
        if key is None or not any(_tensors(content[key])):
            break
        content = content[key]
        keys.append(key)
    tensors = dict(_tensors(content)) if isinstance(content, Mapping) else {}
    if not any(tensor.ndim for tensor in tensors.values()):
        raise UserError(f"{path} holds no state dict (a {type(content).__name__}): save model.state_dict() into it.")
    return tensors, ".".join(keys)


def _tensors(mapping: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every tensor beneath a mapping but those of optimisers and the like, by its dotted name."""
    for key, value in mapping.items():
        if hasattr(value, "data_ptr"):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth < MAX_DEPTH and not NO_WEIGHTS.search(str(key).lower()):
            yield from _tensors(value, f"{prefix}{key}.", depth + 1)


def _load(path: Path) -> Any:
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"  # only this format, of torch 1.6 and later, can be mapped
        if zipped and _is_script(path):
            raise UserError(f"{path} is a TorchScript program, which raylab does not run: save its state_dict().")
        return torch.load(path, weights_only=True, mmap=zipped, map_location="cpu")
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, str(error))) from error
    except Exception as error:  # torch raises whatever a damaged file leads to
        raise UserError(f"{path} is no sound PyTorch file ({first_line(error)}): download or copy it again.") from error


def _is_script(path: Path) -> bool:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _refusal(path: Path, message: str) -> str:
    """torch's unpickler stops at objects that it would have to run code for, and at bytes that are none of its own."""
    if "Unsupported operand" in message:
        return f"{path} is no sound file of torch.save: download or copy it again, or give a .safetensors file."
    found = re.search(r"GLOBAL (\S+)", message)
    return (
        f"{path} holds Python objects{f' ({found[1]})' if found else ''}, not only tensors: loading it could run any "
        "code, so raylab does not; where you trust it, load it yourself and save model.state_dict(), or safetensors."
    )
