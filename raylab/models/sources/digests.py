"""Digests of weights: of what they are, not of where or since when.

SHA-256, because processors have instructions for it: 1.9 GB/s on a core with them against BLAKE2b's 1.3. hashlib
releases the GIL, so that shards are hashed side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import why_without_values
from raylab.types import digest

THREADS = 4


def of_files(paths: Sequence[Path]) -> str:
    """Digest of the bytes of files, in the order of their names (24 hexadecimal characters)."""
    with ThreadPoolExecutor(min(THREADS, len(paths))) as pool:
        return digest(list(pool.map(_of_file, sorted(paths, key=lambda path: path.name))))


def of_tensors(tensors: Iterable[tuple[str, Any]]) -> str:
    """Digest of names, shapes, types and bytes of tensors (torch or numpy), in the order of their names.

    What is no tensor (the epoch of a checkpoint) does not count; one without bytes to read counts without them.
    """
    described = [(str(name), *_of_tensor(tensor)) for name, tensor in tensors if hasattr(tensor, "dtype")]
    return digest(sorted(described, key=lambda entry: entry[0]))


def _of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def _of_tensor(tensor: Any) -> tuple[list[int], str, str]:
    if reason := why_without_values(tensor):
        return [], "", reason
    if hasattr(tensor, "detach"):
        import torch

        name = str(tensor.dtype).removeprefix("torch.")
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    else:
        array = np.asarray(tensor)
        dtype = getattr(tensor, "dtype", array.dtype)
        name = getattr(dtype, "name", str(dtype))
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return list(tensor.shape), name, hashlib.sha256(flat.data).hexdigest()
