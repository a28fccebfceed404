"""ImageNet, CIFAR-10 and any other labelled images, prepared for a network as timm prepares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylab.data import hub, image_files, preprocessing
from raylab.data.cache import Allocate, Stored, cached
from raylab.data.encoded import ADVICE, Images
from raylab.data.evaluation import EvaluationData
from raylab.errors import UserError
from raylab.types import Array, digest

SUBSETS = ("spread", "first")
VERSION = 1  # raised whenever the same files would give other pixels


def load(
    network: Any = None,
    root: str | Path | None = None,
    *,
    name: str = "images",
    split: str | None = None,
    classes: str | None = None,
    samples: int | None = None,
    subset: str = "spread",
    size: int | Sequence[int] | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    cache: str | Path | None = None,
    download: bool = False,
    hub_id: str = "ILSVRC/imagenet-1k",
) -> EvaluationData:
    """Labelled images, (samples, 3, height, width) of uint8, with the mean and standard deviation to normalise by.

    root: a folder of class folders, one with parquet files, or such a file (see image_files.find); None: the local
    cache of the Hugging Face hub, where `download` puts the split of `hub_id`. split: "validation", "test" or "train";
    None: validation if there is one, else test. classes: what the names of class folders mean (image_files).

    They are scaled and cropped as `network.preprocessing`, a timm data configuration, says, with the arguments size,
    interpolation, crop_pct, crop_mode, mean and std in the place of what it says. Without either they are taken as
    stored, and must be equal in size. (x/255 - mean)/std is then what timm's transform gives, bit for bit.

    samples: how many of all n; None: all. subset="spread": those in the places floor(i n / samples), which are balanced
    over classes where the files are sorted by class; "first": those at the beginning.

    Decoded images are kept in the folder `cache`; None: the user's cache folder. Raises UserError for what is not there
    or cannot be read.
    """
    how = preprocessing.for_network(
        getattr(network, "preprocessing", None),
        size=size,
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        mean=mean,
        std=std,
    )
    where = Path(root) if root is not None else hub.image_folder(hub_id, split or "validation", download)
    images = image_files.find(where, split, classes)
    chosen = _chosen(len(images.labels), samples, subset, where)
    key = digest([VERSION, images.identity(), chosen.tolist(), how.pixels])
    stored = cached(cache, key, lambda allocate: _decoded(images, chosen, how, allocate))
    y = images.labels[chosen]
    return EvaluationData(
        name=name,
        task="image",
        x=stored.array,
        y=y,
        mean=how.mean,
        std=how.std,
        revision=_revision(stored, y, how),
        classes=images.classes,
        protocol={"crop": _crop(how, stored.array), "subset": None if samples is None else f"{subset} {samples}"},
    )


def _chosen(total: int, samples: int | None, subset: str, where: Path) -> NDArray[np.int64]:
    """Places of the images to take, ascending."""
    if subset not in SUBSETS:
        raise UserError(f"data.subset={subset} is not known. Available: {', '.join(SUBSETS)}.")
    if not total:
        raise UserError(f"There are no images in {where}. {ADVICE}")
    if samples is not None and not 1 <= samples <= total:
        raise UserError(f"data.samples={samples} must be between 1 and {total}, the number of images in {where}.")
    count = total if samples is None else samples
    places = np.arange(count, dtype=np.int64)
    return places if subset == "first" else places * total // count


def _decoded(images: Images, chosen: NDArray[np.int64], how: preprocessing.Preprocessing, allocate: Allocate) -> Array:
    x: Array | None = None
    for place, image in enumerate(preprocessing.decode(images.pick(chosen), how)):
        if x is None:
            x = allocate((len(chosen), *image.shape), np.uint8)
        if image.shape != x.shape[1:]:
            raise UserError(
                f"Image {chosen[place]} has {image.shape[2]} x {image.shape[1]} pixels and the first "
                f"{x.shape[3]} x {x.shape[2]}: give data.size, to which all are scaled and cropped."
            )
        x[place] = image
    assert x is not None
    return x


def _crop(how: preprocessing.Preprocessing, x: Array) -> str:
    return how.crop if how.size is not None else f"{how.crop} {x.shape[3]}x{x.shape[2]}"


def _revision(stored: Stored, y: NDArray[np.int64], how: preprocessing.Preprocessing) -> str:
    """Of what the network sees: the same pixels are the same data, wherever they were stored and how."""
    return digest([stored.digest, y.tolist(), how.mean, how.std])
