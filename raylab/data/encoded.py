"""The nouns of images as they are stored, and where to find them is said when they are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

ADVICE = "Give data.root=FOLDER, one of class folders with images or of parquet files (columns image, label)."


class Encoded(NamedTuple):
    """One image as it is stored."""

    name: str  # for a person
    read: Callable[[], bytes]


class Images(Protocol):
    """Labelled images in an order."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their classes, (samples,)."""
        ...

    @property
    def classes(self) -> int | None:
        """How many there are, whether or not they have an image here; None: it is not said."""
        ...

    def identity(self) -> Any:
        """What changes when the files do: names, sizes, times."""
        ...

    def pick(self, chosen: NDArray[np.int64]) -> Iterator[Encoded]:
        """Some of them, by their places in ascending order."""
        ...
