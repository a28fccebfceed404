"""Labelled images in parquet files, as the Hugging Face hub has them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylab.data import parquet
from raylab.data.class_folders import IMAGENET, IMAGENET_CLASSES, stamp
from raylab.data.encoded import ADVICE, Encoded
from raylab.errors import UserError

BATCH = 256  # rows at a time


class ParquetImages:
    """Parquet files with a column "image" or "img" of {bytes, path}, and an integer "label"; rows as they lie."""

    def __init__(self, files: Sequence[Path], classes: str | None = None) -> None:
        """classes: "imagenet-1k", whose labels these are; else what the files say: few images may not show all."""
        self.files = files
        self.labels = np.concatenate([_labels(path) for path in files])
        self.classes = IMAGENET_CLASSES if classes == IMAGENET else _named(files[0])

    def identity(self) -> Any:
        """Names, sizes and times of change."""
        return [stamp(path.resolve()) for path in self.files]

    def pick(self, chosen: NDArray[np.int64]) -> Iterator[Encoded]:
        """Some of them, by their places; row groups that hold none are not read."""
        first = 0
        for path in self.files:
            file = parquet.opened(path, ADVICE)
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                wanted = chosen[(chosen >= first) & (chosen < last)] - first
                if len(wanted):
                    yield from _of_group(file, path, group, wanted)
                first = last


def _labels(path: Path) -> NDArray[np.int64]:
    import pyarrow as pa

    _image_column(parquet.opened(path, ADVICE), path)
    column = parquet.column(path, "label", ADVICE)
    if not pa.types.is_integer(column.type) or column.null_count:
        raise UserError(f"The column 'label' of {path} is no class number in every row. {ADVICE}")
    labels = column.to_numpy().astype(np.int64)
    if len(labels) and labels.min() < 0:
        raise UserError(f"{path} keeps its labels secret (they are -1): take the validation split.")
    return labels


def _named(path: Path) -> int | None:
    """How many names the hub's description of the column 'label' has; None where there is none."""
    metadata = parquet.opened(path, ADVICE).schema_arrow.metadata or {}
    try:
        return len(json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _image_column(file: Any, path: Path) -> str:
    import pyarrow as pa

    for name in ("image", "img"):
        place = file.schema_arrow.get_field_index(name)
        kind = file.schema_arrow.field(place).type if place >= 0 else None
        if kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return name
    raise UserError(f"{path} has no column 'image' or 'img' of encoded bytes. {ADVICE}")


def _of_group(file: Any, path: Path, group: int, wanted: NDArray[np.int64]) -> Iterator[Encoded]:
    """The wanted rows of a row group, a batch at a time."""
    column, first = _image_column(file, path), 0
    for batch in _batches(file, path, group, column):
        rows = wanted[(wanted >= first) & (wanted < first + len(batch))]
        contents = batch.column(0).field("bytes")
        for row in rows:
            content = contents[int(row - first)]
            yield Encoded(f"in row {row} of row group {group} of {path}", functools.partial(_content, content))
        first += len(batch)


def _batches(file: Any, path: Path, group: int, column: str) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from file.iter_batches(BATCH, row_groups=[group], columns=[column])
    except (OSError, pa.ArrowException) as error:
        raise parquet.damaged(path, error, ADVICE) from error


def _content(scalar: Any) -> bytes:
    return scalar.as_py() or b""
