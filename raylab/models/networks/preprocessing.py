"""How the images of a model have to be prepared, whichever library it is from, as a data config of timm's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PILLOW = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # its numbers of filters
WARPED = 384  # pixels from which on ConvNeXt's processor crops nothing


def preprocessing(model: Any, architecture: str, folder: Path | None) -> dict[str, Any] | None:
    """How the images have to be prepared, as a data config of timm's."""
    if hasattr(model, "preprocessing"):
        return model.preprocessing
    if hasattr(model, "pretrained_cfg"):
        from timm.data.config import resolve_model_data_config

        return dict(resolve_model_data_config(model))
    library, _, name = architecture.partition("/")
    if library == "torchvision":
        return _torchvision_preprocessing(name)
    if folder is not None and (folder / "preprocessor_config.json").is_file():
        return _transformers_preprocessing(json.loads((folder / "preprocessor_config.json").read_text()))
    return None


def _torchvision_preprocessing(name: str) -> dict[str, Any]:
    import torchvision

    weights: Any = torchvision.models.get_model_weights(name)
    transforms = weights.DEFAULT.transforms()
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return {
        "input_size": (3, crop, crop),
        "interpolation": transforms.interpolation.value,
        "crop_pct": crop / resize,
        "crop_mode": "center",
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
    }


def _transformers_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    size, share = config.get("size") or 224, config.get("crop_pct")
    resized = _sides(size)
    cropped = _sides(config["crop_size"]) if config.get("do_center_crop") and config.get("crop_size") else resized
    squash = isinstance(size, int) or "shortest_edge" not in size
    if share and not config.get("crop_size") and resized[0] >= WARPED:
        squash, share = True, None
    normalised = config.get("do_normalize", True)
    return {
        "input_size": (3, *cropped),
        "interpolation": PILLOW[config.get("resample", 2)],
        "crop_pct": (cropped[0] / resized[0] if resized[0] else 1.0) * (share or 1.0),
        "crop_mode": "squash" if squash else "center",
        "mean": tuple(config.get("image_mean", (0.5, 0.5, 0.5))) if normalised else (),
        "std": tuple(config.get("image_std", (0.5, 0.5, 0.5))) if normalised else (),
    }


def _sides(size: Any) -> tuple[Any, Any]:
    """Height and width; None for those that a configuration does not say so that we know them."""
    if isinstance(size, int):
        return size, size
    edge = size.get("shortest_edge")
    return size.get("height", edge), size.get("width", edge)
