"""Images as a model wants them: timm's own transform for it, up to the crop. What is left is (x/255 - mean)/std."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylab.data.encoded import Encoded
from raylab.errors import UserError

# What timm's data configuration says of evaluation, and its defaults there.
DEFAULTS = {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
CHUNK = 256  # images on their way at a time
BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an encoded image to (3, height, width) of uint8. `size` None: as it is stored."""

    size: tuple[int, int] | None  # height, width
    interpolation: str
    crop_pct: float  # side of the crop over that of the scaled image
    crop_mode: str  # "center", "squash" (aspect ratio not kept), "border" (padded with `mean`: nothing is lost)
    mean: tuple[float, ...]  # of x/255 by channel
    std: tuple[float, ...]

    @property
    def crop(self) -> str:
        """For a person: "bicubic 248, centre 224"; "as stored"."""
        if self.size is None:
            return "as stored"
        scaled = "x".join(str(side) for side in _once([math.floor(side / self.crop_pct) for side in self.size]))
        mode = "" if self.crop_mode == "center" else f" {self.crop_mode}"
        return f"{self.interpolation} {scaled}{mode}, centre {'x'.join(str(side) for side in _once(self.size))}"

    @property
    def pixels(self) -> tuple[Any, ...]:
        """All that changes the stored bytes."""
        if self.size is None:
            return ("as stored",)
        padding = self.mean if self.crop_mode == "border" else ()
        return (self.size, self.interpolation, self.crop_pct, self.crop_mode, padding)


def for_network(config: Mapping[str, Any] | None, **given: Any) -> Preprocessing:
    """What a timm data configuration says, with what is `given` (and not None) in its place.

    given: size (a side, or height and width), interpolation, crop_pct, crop_mode, mean, std. Raises UserError for
    values that make no sense.
    """
    known = {**DEFAULTS, **{key: value for key, value in (config or {}).items() if value is not None}}
    known |= {key: value for key, value in given.items() if value is not None}
    mean, std = (tuple(float(value) for value in known.get(key) or ()) for key in ("mean", "std"))
    if (len(mean), len(std)) not in ((3, 3), (0, 0)) or not all(value > 0 for value in std):
        raise UserError("data.mean and data.std belong together: three numbers each, those of data.std above 0.")
    for key, choices in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
        if known[key] not in choices:
            raise UserError(f"data.{key}={known[key]} is not known. Available: {', '.join(choices)}.")
    if not 0 < float(known["crop_pct"]) <= 1:
        raise UserError(f"data.crop_pct={known['crop_pct']} must be above 0 and at most 1.")
    return Preprocessing(_size(known), known["interpolation"], float(known["crop_pct"]), known["crop_mode"], mean, std)


def _size(known: Mapping[str, Any]) -> tuple[int, int] | None:
    if "size" in known:
        size = known["size"]
        sides = (size, size) if isinstance(size, int) else tuple(size)
    elif "input_size" in known:
        channels, *sides = known["input_size"]
        if channels != 3:
            raise UserError(f"The network wants images of {channels} channels: raylab reads RGB, 3 channels.")
    else:
        return None
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"data.size={known.get('size')} must be a side in pixels, or [height,width].")
    return sides[0], sides[1]


def _once(sides: Iterable[int]) -> list[int]:
    """A square by its side."""
    return sorted(set(sides)) if len(set(sides)) == 1 else list(sides)


def decode(images: Iterable[Encoded], preprocessing: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    """The images one after another, (3, height, width), decoded in threads: PIL lets go of the GIL.

    Raises UserError for an image that cannot be read.
    """
    transform = _transform(preprocessing)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting = iter(images)
    with ThreadPoolExecutor(cores) as pool:
        while chunk := list(islice(waiting, CHUNK)):
            yield from pool.map(lambda image: _decoded(image, transform), chunk)


def _transform(preprocessing: Preprocessing) -> Any:
    """timm's transform for evaluation, which ends in a tensor of uint8; None where nothing is to be done."""
    if preprocessing.size is None:
        return None
    from timm.data.transforms_factory import create_transform

    return create_transform(
        input_size=(3, *preprocessing.size),
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        mean=preprocessing.mean or BLACK,
        std=preprocessing.std or (1.0, 1.0, 1.0),
        use_prefetcher=False,
        normalize=False,
    )


def _decoded(image: Encoded, transform: Any) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image.read())) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # PIL's own errors are OSErrors
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"The image {image.name} cannot be read ({why}): replace it, or take it away.") from error
    if transform is None:
        return np.asarray(picture).transpose(2, 0, 1)
    return transform(picture).numpy()
