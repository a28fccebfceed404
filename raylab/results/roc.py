"""The area under the ROC curve of many cases that come in units (models, layers), and its bootstrap over units.

It is the Mann-Whitney statistic: the share of pairs of a positive and a negative case in which the positive one has
the higher score, a tie being half a pair. A bootstrap that draws whole units w_u times (as one does for clustered ROC
data: Obuchowski 1997) counts each pair w_u w_v times, so the pairs are summed between units once, and every replica is
a product. Shapes: n cases, m units, B replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Pairs of a positive case of unit u and a negative one of unit v."""

    won: Float  # (m, m): in how many the positive one has the higher score
    positive: Float  # (m,): cases
    negative: Float  # (m,)

    def of_all(self) -> tuple[float, float]:
        """How many pairs are won, and how many there are."""
        return float(self.won.sum()), float(self.positive.sum() * self.negative.sum())

    def resampled(self, weights_Bm: Float) -> tuple[Float, Float]:
        """The same, (B,) each, with unit u and all its cases counted weights_Bm[b, u] times."""
        won = np.einsum("bm,bm->b", weights_Bm @ self.won, weights_Bm)
        return won, (weights_Bm @ self.positive) * (weights_Bm @ self.negative)


def area(strata: Sequence[Pairs]) -> float:
    """The area over pairs of the same stratum: a mean over strata, weighted by their pairs. NaN where there is none."""
    won, pairs = (sum(each) for each in zip(*(one.of_all() for one in strata), strict=True))
    return won / pairs if pairs else np.nan


def areas(strata: Sequence[Pairs], weights_Bm: Float) -> Float:
    """Replicas of `area`, (B,); NaN where one drew no pair."""
    drawn = [each.resampled(weights_Bm) for each in strata]
    return _ratio(np.sum([won for won, _ in drawn], axis=0), np.sum([pairs for _, pairs in drawn], axis=0))


def areas_of_strata(strata: Sequence[Pairs], weights_Bs: Float) -> Float:
    """Replicas of `area` that draw whole strata, stratum s weights_Bs[b, s] times, (B,)."""
    won, pairs = np.array([each.of_all() for each in strata]).T
    return _ratio(weights_Bs @ won, weights_Bs @ pairs)


def pairs(score_n: Float, positive_n: NDArray[np.bool_], unit_n: NDArray[np.intp], units: int) -> Pairs:
    """All pairs of these cases; scores must be finite, units are numbered from 0 below `units`."""
    positive, negative = score_n[positive_n], score_n[~positive_n]
    mine, theirs = unit_n[positive_n], unit_n[~positive_n]
    order = np.argsort(negative, kind="stable")
    lower = np.zeros((len(order) + 1, units))  # of the k lowest negatives, how many are of each unit
    lower[np.arange(1, len(order) + 1), theirs[order]] = 1
    np.cumsum(lower, axis=0, out=lower)
    below, upto = (np.searchsorted(negative[order], positive, side) for side in ("left", "right"))
    by_unit = np.argsort(mine, kind="stable")
    won = np.zeros((units, units))
    found, starts = np.unique(mine[by_unit], return_index=True)
    if len(found):
        won[found] = np.add.reduceat((lower[below] + lower[upto])[by_unit] / 2, starts, axis=0)
    return Pairs(won, *(np.bincount(each, minlength=units).astype(float) for each in (mine, theirs)))


def _ratio(won: Float, pairs: Float) -> Float:
    return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
