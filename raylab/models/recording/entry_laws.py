"""Laws that parameters are initialised with, drawn by numpy: the same numbers on every device."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylab.errors import UserError
from raylab.types import Array

Float32 = NDArray[np.float32]
NEGLIGIBLE = 1e-9  # probability below which a bound is not felt: one entry in a thousand million
_REJECT = 0.3  # share of a normal law within its bounds from which on rejection is the faster way


class Law(abc.ABC):
    """How a parameter was initialised. Immutable, picklable, compared by value; str() is a column of rows."""

    @property
    def constant(self) -> bool:
        """Whether every draw is the same."""
        return False

    @property
    def entries_alike(self) -> bool:
        """Whether the entries are independent and of one law, so that a part can be drawn by itself."""
        return isinstance(self, Constant | Uniform | Normal)

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """A fresh tensor of this shape, that of the parameter."""


@dataclass(frozen=True)
class Constant(Law):
    """Every entry has the same value."""

    value: float

    @property
    def constant(self) -> bool:
        """True."""
        return True

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """The value, everywhere."""
        return np.full(shape, self.value, np.float32)

    def __str__(self) -> str:
        return _number(self.value)


@dataclass(frozen=True)
class Uniform(Law):
    """Independent entries, uniform from low to high."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """24 random bits an entry."""
        x = np.asarray(rng.random(shape, dtype=np.float32), np.float32)
        x *= np.float32(self.high - self.low)
        x += np.float32(self.low)
        return x

    def __str__(self) -> str:
        return f"U({_number(self.low)}, {_number(self.high)})"


@dataclass(frozen=True)
class Normal(Law):
    """Independent normal entries; those outside [low, high] are drawn anew."""

    mean: float
    std: float
    low: float = -math.inf
    high: float = math.inf

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """By the ziggurat, with rejection where the bounds are felt, or by the inverse where they are narrow."""
        low, high = (self.low - self.mean) / self.std, (self.high - self.mean) / self.std
        felt = 1 - _mass(low, high) > NEGLIGIBLE
        x = _truncated(rng, shape, low, high) if felt else _standard_normal(rng, shape)
        x *= np.float32(self.std)
        if self.mean:
            x += np.float32(self.mean)
        return np.clip(x, self.low, self.high, out=x) if felt else x  # float32 rounds across a bound

    def __str__(self) -> str:
        name = f"N({_number(self.mean)}, {_number(self.std)})"
        if math.isinf(self.low) and math.isinf(self.high):
            return name
        return f"truncated {name} in [{_number(self.low)}, {_number(self.high)}]"


@dataclass(frozen=True, eq=False)
class Fixed(Law):
    """An array that was computed without randomness: position embeddings, an identity."""

    values: Array

    @property
    def constant(self) -> bool:
        """True."""
        return True

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """A copy of the array."""
        return self.values.reshape(shape).astype(np.float32)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixed) and np.array_equal(self.values, other.values, equal_nan=True)

    def __hash__(self) -> int:
        return hash((self.values.shape, self.values.tobytes()))

    def __str__(self) -> str:
        return "a fixed array"


@dataclass(frozen=True)
class Uninitialised(Law):
    """Memory that nobody wrote to: what is in it has no law."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """Raises UserError."""
        raise UserError("A parameter is never initialised by its model, and has no law to draw from: leave it out.")

    def __str__(self) -> str:
        return "uninitialised"


def uniform(low: float, high: float) -> Law:
    """U(low, high)."""
    return Constant(low) if low == high else Uniform(min(low, high), max(low, high))


def fixed(values: Array) -> Law:
    """These values; a constant where they are all the same."""
    same = values.size and np.all(values == values.flat[0])
    return Constant(float(values.flat[0])) if same else Fixed(values)


def normal(mean: float, std: float, low: float = -math.inf, high: float = math.inf) -> Law:
    """N(mean, std) in [low, high]."""
    return Normal(mean, std, low, high) if std else Constant(min(max(mean, low), high))


def affine(law: Law, scale: float, shift: float) -> Law | None:
    """The law of scale * x + shift; None where it is not simple."""
    if isinstance(law, Constant):
        return Constant(law.value * scale + shift)
    if isinstance(law, Uniform):
        return uniform(law.low * scale + shift, law.high * scale + shift)
    if isinstance(law, Normal) and scale:
        bounds = sorted((law.low * scale + shift, law.high * scale + shift))
        return normal(law.mean * scale + shift, law.std * abs(scale), *bounds)
    return Constant(shift) if isinstance(law, Normal) else None


def clamped(law: Law, low: float, high: float) -> Law | None:
    """The law of x put into [low, high]; None where entries would heap up at a bound."""
    if isinstance(law, Constant):
        return Constant(min(max(law.value, low), high))
    if isinstance(law, Uniform):
        outside = max(low - law.low, 0) + max(law.high - high, 0)
        return law if outside <= NEGLIGIBLE * (law.high - law.low) else None
    if not isinstance(law, Normal):
        return None
    inner = Normal(law.mean, law.std, max(law.low, low), min(law.high, high))
    return inner if _within(inner) >= (1 - NEGLIGIBLE) * _within(law) else None


def inverse_erf(law: Law) -> Law | None:
    """The law of erfinv(x): of a uniform x a (truncated) normal law, how timm and others draw it."""
    from scipy.special import erfinv

    if isinstance(law, Uniform) and law.low >= -1 and law.high <= 1:
        return normal(0, math.sqrt(0.5), float(erfinv(law.low)), float(erfinv(law.high)))
    return Constant(float(erfinv(law.value))) if isinstance(law, Constant) else None


def _within(law: Normal) -> float:
    return _mass((law.low - law.mean) / law.std, (law.high - law.mean) / law.std)


def _mass(low: float, high: float) -> float:
    """Probability that a standard normal number lies from low to high."""
    from scipy.special import ndtr

    low, high = (-high, -low) if low > 0 else (low, high)  # the left tail is the accurate one
    return max(float(ndtr(high) - ndtr(low)), 0.0)


def _standard_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return np.asarray(rng.standard_normal(shape, dtype=np.float32), np.float32)  # of shape () numpy makes a float


def _truncated(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> Float32:
    if _mass(low, high) < _REJECT:
        return _by_inverse(rng, shape, low, high)
    x = _standard_normal(rng, shape)
    flat = x.reshape(-1)
    outside: NDArray[Any] = np.flatnonzero((flat < low) | (flat > high))
    while outside.size:
        fresh = rng.standard_normal(outside.size, dtype=np.float32)
        flat[outside] = fresh
        outside = outside[(fresh < low) | (fresh > high)]
    return x


def _by_inverse(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> Float32:
    from scipy.special import ndtr, ndtri

    if low > 0:
        return -_by_inverse(rng, shape, -high, -low)
    return np.asarray(ndtri(rng.uniform(ndtr(low), ndtr(high), shape))).astype(np.float32)


def _number(value: float) -> str:
    return f"{value:.3g}"
