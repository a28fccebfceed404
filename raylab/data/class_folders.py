"""Folders of images, each a class, in the order of torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylab.data.encoded import ADVICE, Encoded
from raylab.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
SPLITS = {"validation": ("validation", "val", "valid"), "test": ("test",), "train": ("train", "training")}

IMAGENET, IMAGENET_CLASSES = "imagenet-1k", 1000
NAMED = 3  # of the folders in which nothing was found


@dataclass(frozen=True)
class ClassFolders:
    """Folders of images, each a class; the images of a class in the order of their paths, as in torchvision."""

    paths: Sequence[Path]
    labels: NDArray[np.int64]
    classes: int  # that labels are numbers of: as many as there are folders, or the thousand of ImageNet

    @classmethod
    def at(cls, folder: Path, classes: str | None = None) -> ClassFolders:
        """Every image below a class folder.

        classes: "folders", the place of a folder's name among the sorted names; "imagenet-1k", that of its synset
        ("n01440764") among the thousand, which is the same where all are there. None: the first, but refused where
        the folders are some of the thousand only, as nobody can know which is meant.
        """
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        number, among = _numbers(folder, names, classes)
        paths: list[Path] = []
        labels: list[int] = []
        for name in names:
            of_class = _images_below(folder / name)
            if not of_class:
                raise _without_images(folder, names, name)
            paths += of_class
            labels += [number[name]] * len(of_class)
        return cls(paths, np.array(labels, np.int64), among)

    def identity(self) -> Any:
        """Names, sizes and times of change."""
        return [[stamp(path) for path in self.paths], self.labels.tolist()]

    def pick(self, chosen: NDArray[np.int64]) -> Iterator[Encoded]:
        """Some of them, by their places."""
        for place in chosen:
            path = self.paths[place]
            yield Encoded(str(path), path.read_bytes)


def _without_images(folder: Path, names: Sequence[str], empty: str) -> UserError:
    """One class folder of several was forgotten; where all are empty it is not a folder of images at all."""
    if any(_images_below(folder / name) for name in names if name != empty):
        return UserError(f"The class folder {folder / empty} holds no image: fill it, or take it away.")
    return UserError(f"{folder} has no labelled images: none of its folders ({_few(names)}) holds any. {ADVICE}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)


def _numbers(folder: Path, names: list[str], classes: str | None) -> tuple[dict[str, int], int]:
    """Class folder -> label, and how many classes there are."""
    if classes not in (None, "folders", IMAGENET):
        raise UserError(f"data.classes={classes} is not known. Available: folders, imagenet-1k.")
    if not names:
        flat = any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
        what = "its images lie in no class folders, so that they have no labels" if flat else "it is empty"
        raise UserError(f"{folder} has no labelled images: {what}. {ADVICE}")
    if splits := [name for name in names if any(name in known for known in SPLITS.values())]:
        raise UserError(f"{folder} has no such split, but '{splits[0]}': give data.split, or that folder as data.root.")
    if classes == "folders" or not all(_is_synset(name) for name in names):
        if classes == IMAGENET:
            raise UserError(f"{folder} has folders that are no synsets of ImageNet (n01440764): data.classes=folders.")
        return _in_order(names)
    return _synsets(folder, names, classes)


def _in_order(names: Sequence[str]) -> tuple[dict[str, int], int]:
    return {name: place for place, name in enumerate(names)}, len(names)


def _is_synset(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdecimal()


def _synsets(folder: Path, names: list[str], classes: str | None) -> tuple[dict[str, int], int]:
    from timm.data.imagenet_info import ImageNetInfo

    known = {synset: place for place, synset in enumerate(ImageNetInfo(IMAGENET).label_names())}
    among = [name for name in names if name in known]
    if len(among) == len(names) and (classes == IMAGENET or len(names) == len(known)):
        return {name: known[name] for name in names}, len(known)
    if classes == IMAGENET or among:
        raise UserError(
            f"{folder} has {len(names)} synsets, {len(among)} of them ImageNet-1k's thousand: give "
            "data.classes=folders if the network tells just these apart, data.classes=imagenet-1k if it knows them all."
        )
    return _in_order(names)


def _images_below(folder: Path) -> list[Path]:
    """In the order of torchvision: by the folder they lie in, then by name."""
    found = sorted(os.walk(folder, followlinks=True))
    return [Path(at) / name for at, _, names in found for name in sorted(names) if name.lower().endswith(SUFFIXES)]


def stamp(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change, without reading the file."""
    about = path.stat()
    return str(path), about.st_size, about.st_mtime_ns
