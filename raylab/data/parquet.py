"""Parquet files of a split, whole ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylab.errors import UserError

PART = re.compile(r"-(\d+)-of-(\d+)")


def of_split(folder: Path, names: Sequence[str]) -> list[Path]:
    """Its parquet files NAME-*.parquet, or none. Raises UserError where some of a number that they state are missing.

    A download that was cut off leaves such a folder, and half a test set looks like one.
    """
    files = sorted(path for name in names for path in folder.glob(f"{name}-*.parquet"))
    stated = PART.search(files[0].name) if files else None
    if stated and len(files) != int(stated[2]):
        raise UserError(f"{folder} has {len(files)} of {int(stated[2])} files like {files[0].name}: fetch them all.")
    return files


def opened(path: Path, advice: str) -> Any:
    """A pyarrow.parquet.ParquetFile. Raises UserError for another file, or a part of one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error, advice) from error


def column(path: Path, name: str, advice: str) -> Any:
    """A column as a pyarrow.ChunkedArray. Raises UserError where there is none, or the file is damaged."""
    import pyarrow as pa

    file = opened(path, advice)
    if name not in file.schema_arrow.names:
        raise UserError(f"{path} has no column '{name}', but {', '.join(file.schema_arrow.names)}. {advice}")
    try:
        return file.read(columns=[name]).column(name)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error, advice) from error


def damaged(path: Path, error: Exception, advice: str) -> UserError:
    """The line for a file that cannot be read."""
    return UserError(f"{path} is no whole parquet file ({str(error).splitlines()[0]}). {advice}")
