"""What was written where in the memory of a tensor: regions, and the laws they were last filled with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from raylab.models.recording.entry_laws import Float32, Law, Uninitialised

MOST_PATCHES = 64  # a tensor that is written in more pieces than this is no simple program


@dataclass(frozen=True)
class Region:
    """The entries of a storage that a tensor shows; all numbers count entries."""

    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many entries the tensor has."""
        return int(np.prod(self.size, dtype=np.int64))

    @property
    def last(self) -> int:
        """The highest position in the storage."""
        return self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))

    @property
    def injective(self) -> bool:
        """Whether no two entries share a position (an expanded tensor's do)."""
        reach = 0
        for step, n in sorted((step, n) for n, step in zip(self.size, self.stride, strict=True) if n > 1):
            if step <= reach:
                return False
            reach += (n - 1) * step
        return True

    @property
    def dense(self) -> bool:
        """Whether it is every position from the first to the last, each once, in whatever order."""
        return self.injective and self.numel == self.last - self.offset + 1

    def holds(self, other: Region) -> bool:
        """Whether surely all of the other's positions are among these."""
        return self == other or (self.dense and self.offset <= other.offset and other.last <= self.last)

    def apart(self, other: Region) -> bool:
        """Whether surely no position is in both."""
        return self.last < other.offset or other.last < self.offset

    def of(self, flat: np.ndarray) -> np.ndarray:
        """The region of a flat array, as a view."""
        stride = tuple(step * flat.itemsize for step in self.stride)
        return as_strided(flat[self.offset :], self.size, stride)


Patches = tuple[tuple[Region, Law], ...]  # in the order they were written


def whole(numel: int) -> Region:
    """All of a storage."""
    return Region(0, (numel,), (1,))


def filled(patches: Patches, region: Region, law: Law) -> Patches | None:
    """The patches after a fill of a region; None where they get too many."""
    left = tuple(patch for patch in patches if not region.holds(patch[0]))
    return (*left, (region, law)) if len(left) < MOST_PATCHES else None


def mapped(patches: Patches, region: Region, function: Callable[[Law], Law | None]) -> Patches | None:
    """The patches after a function of each entry of a region; None where the outcome is not simple."""
    if patches and all(region.holds(where) for where, _ in patches):
        new = tuple((where, function(law)) for where, law in patches)
        return tuple((where, law) for where, law in new if law is not None) if _all_simple(new) else None
    law = law_at(patches, region)
    law = None if law is None else function(law)
    return None if law is None else filled(patches, region, law)


def _all_simple(patches: tuple[tuple[Region, Law | None], ...]) -> bool:
    return all(law is not None for _, law in patches)


def law_at(patches: Patches, region: Region) -> Law | None:
    """The one law that all entries of a region were drawn from, independently; None where there is no such law."""
    for where, law in reversed(patches):
        if where.holds(region):
            return law if region.injective else None
        if not where.apart(region):
            return None
    return None


@dataclass(frozen=True)
class Patched(Law):
    """Parts of a tensor have laws of their own, such as the row of an embedding that stands for padding."""

    region: Region  # the parameter's
    patches: Patches  # the last one wins

    @property
    def constant(self) -> bool:
        """Whether every part is constant."""
        return all(law.constant for _, law in self.patches)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """Part after part, in the order they were written."""
        numel = 1 + max(self.region.last, *(where.last for where, _ in self.patches))
        flat = np.zeros(numel, np.float32)
        for where, law in self.patches:
            where.of(flat)[...] = law.draw(rng, where.size)
        return np.array(self.region.of(flat), order="C").reshape(shape)

    def __str__(self) -> str:
        (_, first), *more = self.patches
        return "; ".join([str(first), *(f"{where.numel} entries {law}" for where, law in more)])


def law_of(patches: Patches, region: Region) -> Law:
    """The law of a parameter that shows a region."""
    law = law_at(patches, region)
    if law is not None:
        return law
    written = np.zeros(1 + max(where.last for where in (region, *(where for where, _ in patches))), bool)
    for where, _ in patches:
        where.of(written)[...] = True
    return Patched(region, patches) if region.of(written).all() else Uninitialised()
