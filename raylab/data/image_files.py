"""Where labelled images lie: folders of classes, or parquet files of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylab.data import parquet
from raylab.data.class_folders import SPLITS, ClassFolders
from raylab.data.encoded import ADVICE, Images
from raylab.data.parquet_images import ParquetImages
from raylab.errors import UserError

INSIDE = ("data", "plain_text")  # where the hub's repositories have their parquet files


def find(root: str | Path, split: str | None = None, classes: str | None = None) -> Images:
    """The images at `root`: a folder of class folders, a folder with parquet files, or one parquet file.

    A sub-folder named after the split, and parquet files so named, go before the rest; without a `split` that of
    validation goes before the test's. classes: see `ClassFolders.at` and `ParquetImages`. Raises UserError where there
    is nothing.
    """
    place = Path(root).expanduser().absolute()
    if place.is_file() and place.suffix == ".parquet":
        return ParquetImages([place], classes)
    if not place.is_dir():
        raise UserError(f"There is no folder of images {place}. {ADVICE}")
    if split is not None and split not in SPLITS:
        raise UserError(f"data.split={split} is not known. Available: {', '.join(SPLITS)}.")
    for wanted in [split] if split else ("validation", "test"):
        if (found := _of_split(place, SPLITS[wanted])) is not None:
            return _in_folder(found, classes) if isinstance(found, Path) else ParquetImages(found, classes)
    return _in_folder(place, classes)


def _of_split(place: Path, names: Sequence[str]) -> list[Path] | Path | None:
    """Parquet files of the split, or its folder."""
    for folder in (place, *(place / inside for inside in INSIDE)):
        files = parquet.of_split(folder, names)
        if files:
            return files
    return next((place / name for name in names if (place / name).is_dir()), None)


def _in_folder(folder: Path, classes: str | None) -> Images:
    places = (folder, *(folder / inside for inside in INSIDE))
    if files := sorted(path for place in places for path in place.glob("*.parquet")):
        if others := [split for split, names in SPLITS.items() if _named(files, names)]:
            raise UserError(
                f"{folder} has no parquet file of the split, only {_named(files, SPLITS[others[0]])[0]}: "
                f"give data.split={' or '.join(others)}."
            )
        return ParquetImages(files, classes)
    return ClassFolders.at(folder, classes)


def _named(files: Sequence[Path], names: Sequence[str]) -> list[str]:
    """The names of those that are of a split."""
    return [path.name for path in files if path.name.startswith(tuple(f"{name}-" for name in names))]
