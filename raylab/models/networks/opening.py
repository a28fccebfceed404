"""Opening a network: by a library's name, from a folder that says what it holds, or a file and its architecture."""

from __future__ import annotations

import copy
import functools
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import to_numpy
from raylab.models.networks.network import Network, of_module
from raylab.models.networks.preprocessing import preprocessing
from raylab.models.sources import libraries, open_model, place_of
from raylab.models.sources.naming import unwrapped
from raylab.models.sources.source import Source
from raylab.types import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

ARCHITECTURES = "give model.architecture=timm/NAME, torchvision/NAME or transformers/TYPE"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "tokenizer_config.json")


def open_network(
    source: str | None = None,
    *,
    architecture: str | None = None,
    settings: Mapping[str, Any] | None = None,
    initial: str | None = None,
    pretrained: bool = True,
    download: bool = False,
) -> Network:
    """Open a model to evaluate it.

    source: timm/NAME, torchvision/NAME, transformers/MODEL_TYPE, a Hugging Face hub id or folder, or a file of weights.
    architecture: one of the first three, for weights that do not say what they belong to, and for pretrained=False.
    settings: changes of a transformers configuration, such as {"n_layer": 36}. initial: where theta_0 lies, of models
    that publish it. pretrained=False: random weights, always the same. download: fetch what is not in the local cache.
    Raises UserError for what cannot be opened.
    """
    if not source and not architecture:
        raise UserError("A model to evaluate is needed: give model.source=PATH_OR_NAME.")
    place = _Place.of(source, architecture, pretrained, download)
    opened = _opened(place, dict(settings or {}), pretrained, download)
    return of_module(
        opened.name,
        opened.model,
        anew=_anew(opened.model, place),
        origin=opened.origin,
        digest=opened.digest if place.folder is not None and pretrained else None,
        initial=_initial(initial, opened.model, download),
        preprocessing=preprocessing(opened.model, place.built_as, place.folder),
        tokenizer=_tokenizer(source, place.folder),
        download=download,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """What was asked for, and what lies there."""

    source: str | None
    architecture: str | None
    folder: Path | None  # where the source lies, if it lies anywhere; a file too
    kind: str | None  # the library whose config.json it holds

    @classmethod
    def of(cls, source: str | None, architecture: str | None, pretrained: bool, download: bool) -> _Place:
        if architecture is not None and not libraries.is_named(architecture):
            raise UserError(f"model.architecture={architecture} is not known: {ARCHITECTURES}.")
        folder = _folder(source, pretrained, download)
        return cls(source, architecture, folder, None if folder is None else _kind_of_folder(folder))

    @property
    def built_as(self) -> str:
        """What says how the model is built: the source where it does, else the architecture that was named."""
        says_itself = self.source and (libraries.is_named(self.source) or self.kind)
        return (self.source if says_itself else self.architecture or self.source) or ""


def _folder(source: str | None, pretrained: bool, download: bool) -> Path | None:
    """Where the source lies, if it lies anywhere: random weights need no file, but may take what is beside them."""
    if not source:
        return None
    try:
        return place_of(source, download)
    except UserError:
        if pretrained:
            raise
        return None


def _opened(place: _Place, settings: dict[str, Any], pretrained: bool, download: bool) -> Source:
    source, architecture = place.source, place.architecture
    if not pretrained or source is None:
        return _random(place.built_as, settings, download)
    if libraries.is_named(source):
        if source.startswith("transformers/"):
            return libraries.open_transformers(source.partition("/")[2], pretrained, settings, with_head=True)
        return open_model(source, download=download)
    weights = open_model(source, download=download)
    if place.folder is not None and place.kind:
        make = functools.partial(_of_folder, place.folder, place.kind)
        model = libraries.built(weights.name, weights.origin, make, pretrained=True).model
        return Source(weights.name, model, weights.origin, weights.hashed)
    if architecture is None:
        raise UserError(
            f"{source} does not say which architecture it belongs to: {ARCHITECTURES}, or a folder with a config.json."
        )
    blank = _random(architecture, settings, download)
    _fill(blank.model, weights, architecture)
    return Source(weights.name, blank.model, weights.origin, weights.hashed)


def _random(what: str, settings: dict[str, Any], download: bool) -> Source:
    library, _, name = what.partition("/")
    if library == "transformers":
        return libraries.open_transformers(name, False, settings, with_head=True)
    return open_model(what, pretrained=False, download=download)


def _kind_of_folder(folder: Path) -> str | None:
    """The library whose config.json a folder holds."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    return "timm" if "architecture" in config else "transformers"


def _of_folder(folder: Path, kind: str) -> Any:
    """The model of a folder that its library wrote. Code beside it is never run."""
    try:
        return _of_timm_folder(folder) if kind == "timm" else _of_transformers_folder(folder)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise UserError(
            f"{folder / 'config.json'} is none that {kind} can build: {libraries.why_not(error)}"
        ) from error


def _of_timm_folder(folder: Path, pretrained: bool = True) -> Any:
    return importlib.import_module("timm").create_model(f"local-dir:{folder}", pretrained=pretrained)


def _of_transformers_folder(folder: Path) -> Any:
    import torch

    transformers: Any = importlib.import_module("transformers")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with libraries.without_progress_bars():
        loaded, how = _class_with_logits(folder, config).from_pretrained(
            folder, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(how["missing_keys"]):  # transformers would go on with random weights
        raise UserError(f"{folder} has no weights for '{missing[0]}', which its config.json asks for.")
    return loaded


def _class_with_logits(folder: Path, config: Any) -> Any:
    """The class that a configuration names, or that of its type which has a head where it names none, or the trunk."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    named = (getattr(config, "architectures", None) or [None])[0]
    found = libraries.class_of(config)
    if named is not None and found is None:
        raise UserError(
            f"{folder / 'config.json'} names the class {named}, which transformers does not have: give the file of the "
            "weights, and with it model.architecture=transformers/TYPE."
        )
    trunk: Any = MODEL_MAPPING.get(type(config), None)
    return libraries.headed(type(config)) if found in (None, trunk) else found


def _fill(model: nn.Module, weights: Source, architecture: str) -> None:
    """Give a model weights from a file. Raises UserError where they are not its own."""
    import torch

    state = {name: torch.from_numpy(np.array(array)) for name, array in _arrays(weights.model).items()}
    try:
        model.load_state_dict({**_tied(model, state), **state})
    except RuntimeError as error:
        said = " ".join(str(error).partition(":")[2].split())[:160]
        raise UserError(
            f"{weights.origin} does not fit {architecture} ({said} ...): give the folder with its config.json, another "
            "model.architecture, or the model.settings in which it differs."
        ) from error


def _tied(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that a file leaves out because it has them under another name: a head tied to its embedding."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    there = {name: other for same in names.values() for name in same for other in same if other in state}
    return {name: state[other] for name, other in there.items() if name not in state}


def _arrays(held: Any) -> dict[str, Array]:
    """The tensors of a module or a mapping, without the prefixes of what it was wrapped in."""
    tensors = held.state_dict() if hasattr(held, "state_dict") else held
    new = unwrapped(tensors)
    return {new[name]: to_numpy(tensor) for name, tensor in tensors.items()}


def _anew(model: Any, place: _Place) -> Callable[[], Any]:
    """How the architecture is built with the weights that its library begins with."""
    if hasattr(model, "config") and hasattr(type(model), "_from_config"):
        return functools.partial(_from_config, type(model), copy.deepcopy(model.config))
    if place.folder is not None and place.kind == "timm":
        return functools.partial(_of_timm_folder, place.folder, pretrained=False)
    return functools.partial(libraries.new_model, place.built_as)


def _from_config(model_class: Any, config: Any) -> Any:
    return model_class._from_config(copy.deepcopy(config))


def _initial(place: str | None, model: nn.Module, download: bool) -> dict[str, Array] | None:
    """theta_0 by the names of the model's own parameters."""
    if place is None:
        return None
    known = _arrays(open_model(place, download=download).model)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    missing = [name for name, shape in shapes.items() if name not in known or known[name].shape != shape]
    if missing:
        raise UserError(
            f"model.initial={place} has no '{missing[0]}' of shape {shapes[missing[0]]}: it is another model's."
        )
    return {name: known[name].astype(np.float32, copy=False) for name in shapes}


def _tokenizer(source: str | None, folder: Path | None) -> str | None:
    if folder is not None and folder.is_dir() and any((folder / name).is_file() for name in TOKENIZER_FILES):
        return str(folder)
    return None if source is None or libraries.is_named(source) or folder is not None else source
