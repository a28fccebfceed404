"""What a search chooses from: for each key that is searched, a list of values or an interval.

Values are text, as a command line writes them (`key=text`): the config gives them their type, as it does for a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from raylab.errors import UserError
from raylab.types import generator

Sample = dict[str, str]  # key -> text


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    texts: tuple[str, ...]

    @property
    def number(self) -> bool:
        """Whether all of them are numbers."""
        return all(map(_is_number, self.texts))

    def values(self) -> tuple[str, ...]:
        """All of them."""
        return self.texts

    def ends(self) -> tuple[str, ...]:
        """Values to try before a search: all of words, as each may be mistyped, and the first and last of numbers."""
        return tuple(dict.fromkeys((self.texts[0], self.texts[-1]))) if self.number else self.texts

    def draw(self, rng: np.random.Generator) -> str:
        """Any of them, alike."""
        return self.texts[rng.integers(len(self.texts))]

    def __str__(self) -> str:
        return f"choice({','.join(self.texts)})"


@dataclass(frozen=True)
class Interval:
    """A number from low to high, both included."""

    low: float
    high: float
    log: bool = False  # its logarithm is drawn evenly
    whole: bool = False  # a whole number
    number = True

    def values(self) -> tuple[str, ...]:
        """None can be listed."""
        return ()

    def ends(self) -> tuple[str, ...]:
        """Both ends."""
        return self.text(self.low), self.text(self.high)

    def text(self, value: float) -> str:
        """A value as it is written."""
        return str(round(value)) if self.whole else repr(float(value))

    def draw(self, rng: np.random.Generator) -> str:
        """Evenly, on the scale asked for."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        drawn = math.floor(drawn) if self.whole else drawn
        return self.text(min(max(drawn, self.low), self.high))

    def __str__(self) -> str:
        inner = f"interval({self.low:g},{self.high:g})"
        inner = f"int({inner})" if self.whole else inner
        return f"tag(log,{inner})" if self.log else inner


Dimension = Choice | Interval
Space = Mapping[str, Dimension]


def grid(space: Space) -> list[Sample]:
    """Every combination, the last key the fastest. Raises UserError for a key that has no list of values."""
    for key, dimension in space.items():
        if not dimension.values():
            raise UserError(
                f"tune.search=grid takes every value, and {key}={dimension} has no list of them: write "
                f"{key}=choice(...) or tune.search=random."
            )
    return [dict(zip(space, texts, strict=True)) for texts in product(*(each.values() for each in space.values()))]


def randomly(space: Space, samples: int, seed: int) -> list[Sample]:
    """So many samples: the first ten of twenty are the ten of ten."""
    return [random_sample(space, number, seed) for number in range(samples)]


def random_sample(space: Space, number: int, seed: int) -> Sample:
    """The sample of a number, from a stream of its own."""
    return {key: each.draw(generator(seed, "search", number, key)) for key, each in space.items()}


def probes(space: Space) -> list[Sample]:
    """A few samples that show each value that may be mistyped, so that it is found before the search begins."""
    first = {key: dimension.ends()[0] for key, dimension in space.items()}
    return [first, *({**first, key: text} for key, each in space.items() for text in each.ends()[1:])]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
