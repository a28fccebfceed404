"""Safetensors files without torch, a tensor at a time.

The installed library's numpy reader refuses bfloat16 and the 8-bit floats, and maps the whole file into memory. The
format is small: 8 bytes with the length of a JSON header, the header, then the tensors' bytes without a gap. So the
header is read and checked here, and a tensor's bytes are read when they are asked for, and not kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from raylab.errors import UserError
from raylab.models.sources.dtypes import STORED_TYPES, StoredType, widened
from raylab.models.sources.naming import flow_order
from raylab.types import Array

MAX_HEADER = 100_000_000  # bytes, as in the reference implementation
LENGTH_BYTES = 8


# Names of a language model's output layer, and of the embeddings that it may share its weights with.
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_embeddings?|output|decoder)(\.decoder)?\.weight$")
EMBEDDING = re.compile(r"(^|\.)(wte|tok_embeddings|(word_|token_)?embed(ding|dings|_tokens|_in)?|shared)\.weight$")
COMPARED_BYTES = 1 << 24  # at a time


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor that lies in a file and is read whenever an array is made of it. Picklable: it holds no open file."""

    name: str
    shape: tuple[int, ...]
    dtype: StoredType
    path: Path
    offset: int  # of its first byte in the file

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def rows(self, start: int, stop: int) -> Array:
        """Rows start to stop (exclusive) of a tensor of one or more dimensions, read now, in the type of `__array__`.

        Raises UserError where the file has become shorter, and IndexError for rows that are not there.
        """
        if not (self.shape and 0 <= start <= stop <= self.shape[0]):
            raise IndexError(f"{self.name} of shape {self.shape} has no rows {start} to {stop}")
        return self._read(math.prod(self.shape[1:]) * start, (stop - start, *self.shape[1:]))

    def __getitem__(self, index: Any) -> Array:
        """As of an array, but that only the rows of the first axis that are asked for are read: one expert of many."""
        first, *others = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice) and first.step in (None, 1):
            start, stop, _ = first.indices(self.shape[0])
            return self.rows(start, max(start, stop))[(slice(None), *others)]
        if isinstance(first, int):
            at = range(self.shape[0])[first]
            return self.rows(at, at + 1)[(0, *others)]
        return np.asarray(self)[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"{self.name} lies in a file: an array of it is always a copy")
        array = self._read(0, self.shape)
        return array if dtype is None else array.astype(dtype, copy=False)

    def _read(self, first: int, shape: tuple[int, ...]) -> Array:
        """`shape` many elements from the element number `first` on."""
        if self.dtype.raw is None:
            raise UserError(f"{self.path}: '{self.name}' is {self.dtype.name}, which raylab does not unpack: skip it.")
        raw = np.empty(shape, self.dtype.raw)
        _fill(raw, self.path, self.offset + first * raw.itemsize, self.name)
        return widened(raw, self.dtype)


def open_files(paths: Iterable[Path]) -> dict[str, StoredTensor]:
    """The tensors of one file, or of all shards of a model, in the order in which data flow, so far as names tell.

    The order of registration is not stored: the format sorts tensors by type and name. Raises UserError for a damaged
    file, and for a tensor that two files hold.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        for tensor in read_header(path):
            if tensor.name in tensors:
                other = tensors[tensor.name].path.name
                raise UserError(f"Both {other} and {path} hold '{tensor.name}': name the one file that is meant.")
            tensors[tensor.name] = tensor
    return _tied({name: tensors[name] for name in sorted(tensors, key=flow_order)})


def _tied(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """A head that is a copy of an embedding, byte by byte, becomes that embedding: the model had tied them."""
    for head in filter(HEAD.search, tensors):
        for embedding in filter(EMBEDDING.search, tensors):
            if _same_bytes(tensors[embedding], tensors[head]):
                tensors[head] = tensors[embedding]
                break
    return tensors


def _same_bytes(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two tensors are alike in type, shape and content; most that are not differ in the first row."""
    if (a.shape, a.dtype) != (b.shape, b.dtype) or a.dtype.raw is None or not a.shape:
        return False
    rows = a.shape[0]
    step = max(1, COMPARED_BYTES * rows // max(1, math.prod(a.shape) * a.dtype.bits // 8))
    starts = [0, *range(1, rows, step)]
    blocks = zip(starts, [*starts[1:], rows], strict=True)
    return all(np.array_equal(a.rows(*block), b.rows(*block), equal_nan=True) for block in blocks)


def read_header(path: Path) -> list[StoredTensor]:
    """The tensors of a file, in the order of their bytes. Raises UserError for a file that breaks the format."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > min(MAX_HEADER, size - LENGTH_BYTES):
            _damaged(path, f"its header ({length} bytes by its own account) does not fit into its {size} bytes")
        text = file.read(length)
    try:
        header = json.loads(text)
        entries = [_entry(name, spec) for name, spec in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        _damaged(path, f"its header cannot be read ({type(error).__name__}: {error})")
    start = LENGTH_BYTES + length
    entries.sort(key=lambda entry: entry[3:])
    _check_layout(path, entries, size - start)
    return [StoredTensor(name, shape, dtype, path, start + begin) for name, shape, dtype, begin, _ in entries]


Entry = tuple[str, tuple[int, ...], StoredType, int, int]


def _entry(name: str, spec: Any) -> Entry:
    """Name, shape, type, first byte and end of one tensor of the header."""
    begin, end = spec["data_offsets"]
    if spec["dtype"] not in STORED_TYPES:
        raise ValueError(f"'{name}' has the unknown dtype {spec['dtype']}")
    for number in (*spec["shape"], begin, end):
        if type(number) is not int or number < 0:
            raise ValueError(f"'{name}' has the size or offset {number}")
    return name, tuple(spec["shape"]), STORED_TYPES[spec["dtype"]], begin, end


def _check_layout(path: Path, entries: Iterable[Entry], size: int) -> None:
    """Tensors lie one behind the other, each as long as its shape says, from the first byte to the last."""
    expected = 0
    for name, shape, dtype, begin, end in entries:
        bits = math.prod(shape) * dtype.bits
        if begin != expected:
            _damaged(path, f"'{name}' begins at byte {begin} of the data, not {expected}")
        if bits % 8 or end - begin != bits // 8:
            _damaged(path, f"'{name}' has {end - begin} bytes where its shape {list(shape)} needs {bits / 8:g}")
        expected = end
    if expected != size:
        _damaged(path, f"its tensors end at byte {expected} of the data, which has {size}")


def _fill(array: Array, path: Path, offset: int, name: str) -> None:
    """Read the bytes of a new array. One call of the system reads 2 GiB at most, hence the loop."""
    left = array.reshape(-1).view(np.uint8).data
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while left and (count := file.readinto(left)):
                left = left[count:]
    except OSError as error:
        raise UserError(f"Cannot read '{name}' from {path}: {error.strerror or error}.") from error
    if left:
        _damaged(path, f"it ends before '{name}' does; it has changed since it was opened")


def _damaged(path: Path, why: str) -> NoReturn:
    raise UserError(f"{path} is no sound safetensors file: {why}; download or copy it again.")
