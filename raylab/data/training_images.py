"""CIFAR-10, or any other labelled images with a training and a test set, as a network is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylab.data import images
from raylab.data.labelled import ClassificationData
from raylab.errors import UserError
from raylab.types import digest


def load(
    root: str | Path | None = None,
    *,
    name: str = "images",
    train: str = "train",
    test: str = "test",
    train_samples: int | None = None,
    test_samples: int | None = None,
    classes: str | None = None,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    cache: str | Path | None = None,
    download: bool = False,
    hub_id: str = "uoft-cs/cifar10",
) -> ClassificationData:
    """Two splits of a folder (see raylab.data.images.load) as uint8, to be normalised by mean and std batch by batch.

    train_samples, test_samples: so many, spread evenly over the split; None: all. Raises UserError for what is not
    there, and for splits that are not of one size.
    """
    common = {"name": name, "classes": classes, "size": size, "mean": mean, "std": std}
    common |= {"cache": cache, "download": download, "hub_id": hub_id}
    first = images.load(None, root, split=train, samples=train_samples, **common)
    second = images.load(None, root, split=test, samples=test_samples, **common)
    if first.x.shape[1:] != second.x.shape[1:]:
        raise UserError(
            f"The images of {train} have {first.x.shape[2:]} pixels and those of {test} {second.x.shape[2:]}: give "
            "data.size, to which all are scaled and cropped."
        )
    return ClassificationData(
        name=name,
        train_x=first.x,
        train_y=first.y,
        test_x=second.x,
        test_y=second.y,
        classes=int(max(first.y.max(), second.y.max())) + 1,
        input_shape=first.x.shape[1:],
        revision=digest([first.revision, second.revision]),
        mean=first.mean,
        std=first.std,
    )
