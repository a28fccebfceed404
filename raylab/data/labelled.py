"""The noun for labelled data. Needs numpy only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylab.types import Array


@dataclass(frozen=True, slots=True)
class ClassificationData:
    """Normalised inputs and their classes, split into a training and a test set."""

    name: str
    train_x: NDArray[np.float32]  # (samples, inputs), normalised
    train_y: NDArray[np.int64]  # (samples,), 0..classes-1
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]
    classes: int
    input_shape: tuple[int, ...]  # of one sample before it was flattened, such as (28, 28)
    revision: str  # digest of the raw content and of the preprocessing; part of a trial's identity

    def __post_init__(self) -> None:
        for x, y in ((self.train_x, self.train_y), (self.test_x, self.test_y)):
            if x.dtype != np.float32 or y.dtype != np.int64:
                raise ValueError(f"inputs must be float32 and classes int64, not {x.dtype} and {y.dtype}")
            if x.ndim != 2 or x.shape != (len(y), self.inputs):
                raise ValueError(f"{len(y)} samples of {self.inputs} inputs expected, not {x.shape}")

    @property
    def inputs(self) -> int:
        """Numbers in one sample."""
        return int(np.prod(self.input_shape))


def revision(preprocessing: str, *raw: Array) -> str:
    """Hex digest (24 characters) of raw arrays (dtype, shape, content) and of what the words say is done to them."""
    whole = hashlib.blake2b(preprocessing.encode(), digest_size=12)
    for array in raw:
        whole.update(f"|{array.dtype.str}{array.shape}|".encode())
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()
