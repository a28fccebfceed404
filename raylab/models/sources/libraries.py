"""Models that timm, torchvision and transformers build. Each library is imported when a model of it is asked for."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raylab.errors import UserError, first_line
from raylab.models.randomness import one_at_a_time, private_randomness
from raylab.models.sources.naming import did_you_mean
from raylab.models.sources.source import Source, of_model

LIBRARIES = ("timm", "torchvision", "transformers")
SEED = 0  # of random weights


def is_named(source: str) -> bool:
    """Whether a name begins with one of the libraries that build models."""
    library, _, name = source.partition("/")
    return library in LIBRARIES and bool(name)


def open_timm(name: str, pretrained: bool, download: bool) -> Source:
    """timm/NAME, as timm.create_model builds it. Raises UserError for an unknown name, and for weights not at hand."""
    timm: Any = importlib.import_module("timm")
    known = timm.list_pretrained() if "." in name else timm.list_models()
    if name not in known:
        raise UserError(f"timm has no model '{name}'.{did_you_mean(name, known)} See timm.list_models().")
    if not pretrained:
        return built(name, f"timm/{name}", functools.partial(new_model, f"timm/{name}"), pretrained=False)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UserError(f"timm has no trained weights of '{name}': give model.pretrained=false, or a local file.")
    file = _timm_file(config)
    if file is None and not download:
        raise UserError(not_at_hand(f"timm/{name}"))
    overlay = None if file is None else {"file": str(file)}
    label = name if "." in name or not config.tag else f"{name}.{config.tag}"
    make = lambda: timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)  # noqa: E731
    return built(label, f"timm/{label}", make, pretrained=True)


def open_torchvision(name: str, pretrained: bool, download: bool) -> Source:
    """torchvision/NAME with its default weights. Raises UserError for an unknown name, and for weights not at hand."""
    models: Any = importlib.import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UserError(f"torchvision has no model '{name}'.{hint} See torchvision.models.list_models().")
    weights = models.get_model_weights(name).DEFAULT if pretrained else None
    if weights is not None and not download and not _torch_hub_file(weights.url):
        raise UserError(not_at_hand(f"torchvision/{name}"))
    make = functools.partial(_torchvision, name, weights)
    return built(name, f"torchvision/{name}", make, pretrained=pretrained)


def new_model(what: str) -> Any:
    """timm/NAME or torchvision/NAME, with the weights that the library begins with."""
    library, _, name = what.partition("/")
    return importlib.import_module("timm").create_model(name) if library == "timm" else _torchvision(name, None)


def _torchvision(name: str, weights: Any) -> Any:
    """A model of torchvision's. A detector would fetch its backbone's weights even where random ones are asked for."""
    models: Any = importlib.import_module("torchvision.models")
    takes_backbone = "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters
    return models.get_model(name, weights=weights, **({"weights_backbone": None} if takes_backbone else {}))


def open_transformers(
    model_type: str, pretrained: bool, settings: Mapping[str, Any] | None = None, *, with_head: bool = False
) -> Source:
    """transformers/MODEL_TYPE: that type's default configuration with random weights; `settings` change it.

    with_head: the model that can be evaluated, a causal language model or a classifier of images, not its trunk.
    """
    transformers: Any = importlib.import_module("transformers")
    known = list(transformers.CONFIG_MAPPING.keys())
    if model_type not in known:
        raise UserError(f"transformers has no model type '{model_type}'.{did_you_mean(model_type, known)}")
    if pretrained:
        hint = "give model.pretrained=false, or a Hugging Face hub id or a folder"
        raise UserError(f"transformers/{model_type} is a configuration without trained weights: {hint}.")

    def configure(auto: Any) -> Any:
        _refuse_unknown(settings or {}, auto.for_model(model_type))
        config = auto.for_model(model_type, **(settings or {}))
        if with_head and not config.architectures:
            config.architectures = [headed(type(config)).__name__]
        return config

    return _from_config(model_type, f"transformers/{model_type}", configure)


def from_config_file(name: str, folder: Path) -> Source:
    """The model that a folder's config.json describes, with random weights. Code beside it is never run."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} has no config.json to build random weights from: leave out model.pretrained=false (--random)."
        )
    options = {"local_files_only": True, "trust_remote_code": False}
    return _from_config(name, str(folder / "config.json"), lambda auto: auto.from_pretrained(folder, **options))


def not_at_hand(what: str) -> str:
    """The line for weights that are not in the local cache."""
    give = "give model.download=true (raylab analyze: --download)"
    return f"{what} is not in the local cache: {give}, or a local file or folder instead."


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Within the block transformers shows none."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def class_of(config: Any) -> Any:
    """The class that the trained weights of a configuration belong to, which decides the names of layers, or None."""
    transformers: Any = importlib.import_module("transformers")
    named = getattr(transformers, (getattr(config, "architectures", None) or [""])[0], None)
    return named if hasattr(named, "_from_config") else None


def headed(config_class: Any) -> Any:
    """The class of a type of models that gives logits. Raises UserError where there is none that can be evaluated."""
    from transformers.models.auto import modeling_auto

    for kind in ("MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING"):
        found = getattr(modeling_auto, kind).get(config_class, None)
        if found is not None:
            return found[0] if isinstance(found, tuple) else found
    raise UserError(
        f"transformers/{config_class.model_type} is neither a causal language model nor a classifier of images."
    )


def _refuse_unknown(settings: Mapping[str, Any], config: Any) -> None:
    """A configuration takes any key, and nothing would read a misspelt one."""
    for key in settings:
        if not hasattr(config, key):
            known = did_you_mean(key, config.to_dict())
            raise UserError(f"The configuration of transformers/{config.model_type} has no '{key}'.{known}")


def why_not(error: BaseException) -> str:
    """What transformers says; of a model that needs code of its own, what can be done."""
    if not re.search("trust_remote_code|custom code|remote code", str(error)):
        return first_line(error)
    return (
        "it needs code that comes with it, which raylab never runs. Its weights can be measured without "
        "(experiment=spectra); to run it, give model._target_=module:function of yours that builds it."
    )


def _from_config(name: str, origin: str, configure: Callable[[Any], Any]) -> Source:
    transformers: Any = importlib.import_module("transformers")

    def make() -> Any:
        try:
            config = configure(transformers.AutoConfig)
            named = class_of(config)
            if named:
                return named._from_config(config)
            return transformers.AutoModel.from_config(config, trust_remote_code=False)
        except (ValueError, KeyError, OSError, ImportError) as error:
            raise UserError(f"transformers cannot build a model from {origin}: {why_not(error)}") from error

    return built(name, origin, make, pretrained=False)


def built(name: str, origin: str, make: Callable[[], Any], *, pretrained: bool) -> Source:
    """What `make` builds, in peace: a seed of its own, no warnings. Raises UserError where files are in the way."""
    with one_at_a_time, private_randomness(SEED), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice of the libraries to those who train
        try:
            model = make().eval()
        except (OSError, RuntimeError) as error:  # a download that fails, a file of other weights, a full disk
            raise UserError(
                f"Cannot open {origin} ({first_line(error)}): give a local file or folder instead."
            ) from error
    return (
        of_model(name, model, origin) if pretrained else of_model(f"{name}-random", model, f"{origin}, random weights")
    )


def _timm_file(config: Any) -> Path | None:
    """The weights of a timm model in the local cache, where timm would look for them."""
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
    if config.hf_hub_id:
        for name in (config.hf_hub_filename,) if config.hf_hub_filename else names:
            found = try_to_load_from_cache(config.hf_hub_id, name)
            if isinstance(found, str):
                return Path(found)
    return _torch_hub_file(config.url) if config.url else None


def _torch_hub_file(url: str) -> Path | None:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return path if path.is_file() else None
