"""The weights of any model, opened for measurement: nothing is read before it is asked for, where that can be.

`open_model` takes a torch module, a mapping, a file, a folder, an adapter, or the name of a model that timm,
torchvision, transformers or the Hugging Face hub know. Code that comes with a model is never run.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylab.errors import UserError
from raylab.models.sources import hub, libraries, lora, merged
from raylab.models.sources.files import ACCEPTED, FOREIGN, SAFETENSORS, TORCH, files_of, label
from raylab.models.sources.naming import nearby
from raylab.models.sources.source import Source, of_model
from raylab.types import digest

__all__ = ["ACCEPTED", "Source", "label", "of_model", "open_model", "place_of"]


def open_model(
    source: Any, *, adapter: str | os.PathLike[str] | None = None, pretrained: bool = True, download: bool = False
) -> Source:
    """Open the weights of a model.

    source: a torch module; a mapping of names to tensors; the path of a .safetensors file, of a PyTorch file (.pt,
    .pth, .bin, .th, .ckpt), or of a folder that holds such weights (in shards or not) or a LoRA adapter; timm/NAME,
    torchvision/NAME, transformers/MODEL_TYPE; a Hugging Face hub id. A path that exists goes before a name.
    adapter: the folder (or hub id) of a LoRA adapter to merge into it. pretrained=False: random weights, always the
    same, where there is something to build a model from. download: fetch what is not in the local cache.
    Raises UserError for everything that cannot be opened.
    """
    if not isinstance(source, (str, os.PathLike)):
        opened = _in_memory(source, pretrained)
    else:
        opened = _named(source, pretrained, download)
    if adapter is not None:
        opened = _adapted(opened, _adapter_folder(adapter, download))
    if isinstance(source, (str, os.PathLike)):
        return dataclasses.replace(opened, reopen=_again(source, adapter, pretrained, download))
    return opened


def place_of(source: str | os.PathLike[str], download: bool = False) -> Path | None:
    """The file or folder that a source stands for, in the hub's cache perhaps; None for a name of a library's.

    Raises UserError for what is neither.
    """
    path, text = _path(source), os.fspath(source)
    if _exists(path) and text:
        return path
    return None if libraries.is_named(text) else _snapshot(source, path, download)


def _again(source: Any, adapter: Any, pretrained: bool, download: bool) -> functools.partial[Source]:
    """The same call, with paths that hold in another working directory."""
    fixed = [str(_path(one).resolve()) if one and _exists(_path(one)) else one for one in (source, adapter)]
    return functools.partial(open_model, fixed[0], adapter=fixed[1], pretrained=pretrained, download=download)


def _in_memory(model: Any, pretrained: bool) -> Source:
    if not isinstance(model, Mapping) and not hasattr(model, "named_modules"):
        raise UserError(f"A {type(model).__name__} is no model: raylab takes {ACCEPTED}.")
    if not pretrained:
        raise UserError("A model in memory is measured as it is: leave out pretrained=False.")
    name = "state_dict" if isinstance(model, Mapping) else type(model).__name__
    return of_model(name, model, f"{type(model).__module__}.{type(model).__name__} in memory")


def _named(source: str | os.PathLike[str], pretrained: bool, download: bool) -> Source:
    path, text = _path(source), os.fspath(source)
    if _exists(path) and text:
        return _at(path, pretrained)
    library, _, name = text.partition("/")
    if library == "timm" and name:
        return libraries.open_timm(name, pretrained, download)
    if library == "torchvision" and name:
        return libraries.open_torchvision(name, pretrained, download)
    if library == "transformers" and name:
        return libraries.open_transformers(name, pretrained)
    folder = _snapshot(source, path, download)
    opened = _at(folder, pretrained, name=text.rpartition("/")[2])
    where = f"{text} on the Hugging Face hub, revision {folder.name}"
    return dataclasses.replace(opened, origin=opened.origin.replace(str(folder), where, 1))


def _at(path: Path, pretrained: bool, name: str | None = None) -> Source:
    """What lies at a path that exists."""
    path = path.absolute()  # what is read later holds in another working directory too
    name = name or label(path)
    if path.is_dir() and lora.is_adapter(path):
        if not pretrained:
            raise UserError(
                f"{path} is an adapter, which has no random version: leave out model.pretrained=false (--random)."
            )
        adapter = lora.open_adapter(path)
        return Source(name, adapter.alone(), f"{path} (LoRA updates, without their base)", adapter.digest)
    if not pretrained:
        return libraries.from_config_file(name, path)
    files = files_of(path)
    tensors, place = files.open()
    return Source(name, tensors, f"{path} (its {place})" if place else str(path), files.digest)


def _adapter_folder(adapter: str | os.PathLike[str], download: bool) -> Path:
    path = _path(adapter)
    return path if _exists(path) else _snapshot(adapter, path, download)


def _adapted(base: Source, folder: Path) -> Source:
    adapter = lora.open_adapter(folder)
    return Source(
        name=f"{base.name}+{folder.resolve().name}",
        model=merged.merged(base.model, adapter),
        origin=f"{base.origin}, with the LoRA adapter {folder}",
        hashed=functools.partial(_digest_of_both, base, adapter),
    )


def _digest_of_both(base: Source, adapter: lora.Adapter) -> str:
    return digest([base.digest, adapter.digest()])


def _snapshot(source: str | os.PathLike[str], path: Path, download: bool) -> Path:
    """The folder in the hub's cache, for what is no path. What looks like a path is not asked there."""
    text = os.fspath(source)
    looks_like_a_path = isinstance(source, os.PathLike) or text.startswith((".", "/", "~")) or not hub.is_hub_id(text)
    if looks_like_a_path or path.suffix.lower() in (SAFETENSORS, *TORCH, *FOREIGN, ".json"):
        raise UserError(f"There is no file or folder {path}.{nearby(path) or f' raylab takes {ACCEPTED}.'}")
    try:
        return hub.snapshot(text, download)
    except UserError as error:
        raise UserError(f"{error}{nearby(path) if _exists(path.parent) else ''}") from error


def _path(source: str | os.PathLike[str]) -> Path:
    return Path(source).expanduser()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a folder that may not be looked into
        return False
