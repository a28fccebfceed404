"""The noun for labelled data. Needs numpy only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylab.types import Array


@dataclass(frozen=True, slots=True)
class ClassificationData:
    """Inputs and their classes, split into a training and a test set.

    Inputs are normalised and flat, or images as they are stored: four times smaller, normalised a batch at a time.
    """

    name: str
    train_x: Array  # (samples, inputs) float32, normalised; or (samples, *input_shape) uint8
    train_y: NDArray[np.int64]  # (samples,), 0..classes-1
    test_x: Array
    test_y: NDArray[np.int64]
    classes: int
    input_shape: tuple[int, ...]  # of one sample before it was flattened, such as (28, 28) or (3, 32, 32)
    revision: str  # digest of the raw content and of the preprocessing; part of a trial's identity
    mean: tuple[float, ...] = ()  # of x/255 by channel, where x is uint8
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for x, y in ((self.train_x, self.train_y), (self.test_x, self.test_y)):
            if x.dtype not in (np.float32, np.uint8) or y.dtype != np.int64:
                raise ValueError(f"inputs must be float32 or uint8 and classes int64, not {x.dtype} and {y.dtype}")
            shape = (self.inputs,) if x.dtype == np.float32 else self.input_shape
            if x.shape != (len(y), *shape):
                raise ValueError(f"{len(y)} samples of {' x '.join(map(str, shape))} inputs expected, not {x.shape}")

    @property
    def inputs(self) -> int:
        """Numbers in one sample."""
        return int(np.prod(self.input_shape))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample as a network of convolutions takes it: (channels, height, width); grey images have one."""
        return (1, *self.input_shape) if len(self.input_shape) == 2 else self.input_shape


def revision(preprocessing: str, *raw: Array) -> str:
    """Hex digest (24 characters) of raw arrays (dtype, shape, content) and of what the words say is done to them."""
    whole = hashlib.blake2b(preprocessing.encode(), digest_size=12)
    for array in raw:
        whole.update(f"|{array.dtype.str}{array.shape}|".encode())
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()
