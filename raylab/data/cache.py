"""Arrays that take long to make, kept on disk: written whole or not at all, read through memory maps.

A file is NumPy's own format and a footer: the digest that names the file, and that of the array's bytes, which says
what the data are wherever they were made.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from raylab.errors import UserError
from raylab.types import Array

MAGIC = b"raylab 1"
DIGITS = 24  # of a digest, in hexadecimal
PIECE = 1 << 26  # bytes hashed at a time


class Stored(NamedTuple):
    """An array, and the digest of its type, shape and bytes (24 hexadecimal characters)."""

    array: Array
    digest: str


# (shape, dtype) -> a writable array to be filled
Allocate = Callable[[tuple[int, ...], Any], Array]


def default_folder() -> Path:
    """The folder "raylab" in the user's cache folder: $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raylab"


def cached(folder: str | Path | None, key: str, make: Callable[[Allocate], Array]) -> Stored:
    """The array that `make` gives, read-only: from the cache where it is there, else made and kept.

    key: digest (24 characters) of all that determines the array. folder: None, the user's cache folder. `make` is
    given a function that allocates the array in the file, and returns that array, filled. Two processes that
    make the same array do so side by side; a truncated or foreign file is made anew. Raises UserError where nothing can
    be written.
    """
    place = Path(folder).expanduser() if folder is not None else default_folder()
    path = place / f"{key}.npy"
    found = _read(path, key)
    if found is not None:
        return found
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=f".{key}.") as workshop:
            _write(Path(workshop) / path.name, key, make).replace(path)
    except OSError as error:
        raise UserError(
            f"The cache folder {place} cannot be used ({error.strerror or error}): give another, data.cache=FOLDER."
        ) from error
    made = _read(path, key)
    if made is None:
        raise RuntimeError(f"{path} was written and cannot be read")
    return made


def _write(path: Path, key: str, make: Callable[[Allocate], Array]) -> Path:
    def allocate(shape: tuple[int, ...], dtype: Any) -> Array:
        array = open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        _reserve(path)
        return array

    array = make(allocate)
    digest = _digest(array)
    if isinstance(array, np.memmap):
        array.flush()
    with path.open("ab") as file:
        file.write(MAGIC + key.encode() + digest.encode())
        file.flush()
        os.fsync(file.fileno())
    return path


def _reserve(path: Path) -> None:
    """A full disk is an OSError here, and not the end of the process where a page of the map cannot be written."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _read(path: Path, key: str) -> Stored | None:
    """What the file holds, or None where it is missing, cut off, longer than it should be or another one."""
    footer = MAGIC + key.encode()
    try:
        array = open_memmap(path, mode="r")
        start = array.offset + array.nbytes
        with path.open("rb") as file:
            file.seek(start)
            end = file.read(len(footer) + DIGITS + 1)
    except (OSError, ValueError):
        return None
    if not end.startswith(footer) or len(end) != len(footer) + DIGITS:
        return None
    return Stored(np.asarray(array), end[len(footer) :].decode())  # plain: Ray shares no subclass without a copy


def _digest(array: Array) -> str:
    whole = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=DIGITS // 2)
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), PIECE):
        whole.update(flat[start : start + PIECE].data)
    return whole.hexdigest()
