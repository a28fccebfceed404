"""How the images of a model have to be prepared, whichever library it is from, as a data config of timm's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
    size = config.get("crop_size") or config.get("size") or 224
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
    return {
        "input_size": (3, side, side),
        "interpolation": {0: "nearest", 2: "bilinear", 3: "bicubic"}.get(config.get("resample", 2), "bilinear"),
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": tuple(config.get("image_mean", (0.5, 0.5, 0.5))),
        "std": tuple(config.get("image_std", (0.5, 0.5, 0.5))),
    }
