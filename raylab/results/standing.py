"""How metrics stand by their verdicts: which of the three tests each passes, and their rank. The rules are stated here.

(a) passes: the whole interval of the shift is below SHIFT standard deviations.
(b) passes: the whole interval of the AUC is beyond AREA, over all cases and, where there are several models, over
    pairs of cases of the same layer too: else it tells layers apart, not what was done to them.
(c) passes: the whole interval of the AUC is beyond AREA.
A metric without a direction that the field takes for good may lie below 1 - AREA instead, in (b) on one side.
Rank: by the lesser of the two AUC of (b), counted from the metric's side. Without an interval there is no rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raylab.results import verdict

SHIFT = 1.0  # standard deviations over trained models
AREA = 0.7  # from which discrimination is called acceptable (Hosmer and Lemeshow, Applied Logistic Regression)
KINDS = {"similarity": "data-based", "spectral": "data-free", "own": "own"}


@dataclass(frozen=True)
class Number:
    """An estimate with its interval; NaN where there is none, and then a status that says why."""

    estimate: float = np.nan
    lo: float = np.nan
    hi: float = np.nan
    status: str = "no_values"
    unit: str = ""

    @property
    def sure(self) -> bool:
        """Whether it has an interval."""
        return bool(np.isfinite(self.lo + self.hi))

    def flipped(self) -> Number:
        """The AUC of the opposite direction."""
        return Number(1 - self.estimate, 1 - self.hi, 1 - self.lo, self.status, self.unit)


@dataclass(frozen=True)
class Standing:
    """One metric in one experiment."""

    metric: str
    kind: str  # data-free, data-based or own
    better: str  # lower, higher, or empty
    shift: Number  # (a), absolute
    rerandomized: Number  # the same of re-randomised layers, to compare
    area: Number  # (b), all cases
    within: Number  # (b), over pairs of the same layer
    groups: Number  # (c)
    rho_reinit: Number
    rho_rerandomize: Number

    def test_a(self) -> bool | None:
        """Whether it passes; None where that cannot be said."""
        return self.shift.hi < SHIFT if self.shift.sure else None

    @property
    def turned(self) -> bool:
        """Whether lower is better: no direction is taken for good, and over all cases the metric says so."""
        return not self.better and self.area.estimate < 0.5

    def test_b(self, turned: bool | None = None) -> bool | None:
        """Whether it passes; None where that cannot be said. turned: which side to count from, by default its own."""
        parts = self.parts(turned)
        return all(each.lo > AREA for each in parts) if all(each.sure for each in parts) else None

    def test_c(self) -> bool | None:
        """Whether it passes; None where that cannot be said."""
        groups = self.groups.flipped() if not self.better and self.groups.estimate < 0.5 else self.groups
        return groups.lo > AREA if groups.sure else None

    def strength(self, turned: bool | None = None) -> float:
        """Ranks metrics: the lesser AUC of (b), .5 for guessing; NaN without intervals. turned: see above."""
        parts = self.parts(turned)
        return min(each.estimate for each in parts) if all(each.sure for each in parts) else np.nan

    def passes(self) -> str:
        """Letters of the tests passed, "none", or empty where none could be made."""
        tests = {"a": self.test_a(), "b": self.test_b(), "c": self.test_c()}
        made = [name for name, passed in tests.items() if passed is not None]
        return " ".join(name for name in made if tests[name]) or ("none" if made else "")

    def parts(self, turned: bool | None = None) -> list[Number]:
        """The AUC of (b) from the metric's side: all cases, and within layers where there are several models."""
        parts = [self.area] if self.area.unit == "layer" else [self.area, self.within]
        return [each.flipped() for each in parts] if (self.turned if turned is None else turned) else parts


def standings(evidence: pa.Table) -> list[Standing]:
    """Every metric of a verdict, best first; those without a rank last, in the order of their columns."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in evidence.to_pylist():
        rows.setdefault(row["metric"], []).append(row)
    found = [_standing(metric, each) for metric, each in rows.items()]
    return sorted(found, key=lambda one: -one.strength() if np.isfinite(one.strength()) else np.inf)


def _standing(metric: str, rows: Iterable[Mapping[str, Any]]) -> Standing:
    numbers: dict[tuple[str, str], Number] = {}
    group = better = ""
    for row in rows:
        group, better = row["group"], row["better"]
        scope = row["scope"] if row["scope"] not in (verdict.STANDARDISED, verdict.RAW) else "all"
        if row["headline"] or (row["question"], scope) == (verdict.INVARIANCE, "rerandomize"):
            values = (row["estimate"], row["lo"], row["hi"])
            numbers[row["question"], scope] = Number(*values, row["status"], row["unit"])

    def of(question: str, scope: str) -> Number:
        return numbers.get((question, scope), Number())

    return Standing(
        metric=metric,
        kind=KINDS.get(group, group),
        better=better,
        shift=of(verdict.INVARIANCE, "reinit"),
        rerandomized=of(verdict.INVARIANCE, "rerandomize"),
        area=of(verdict.ROBUST, "all"),
        within=of(verdict.ROBUST, verdict.WITHIN_LAYERS),
        groups=of(verdict.GROUPS, verdict.WITHIN_LAYERS),
        rho_reinit=of(verdict.WITHIN, "reinit"),
        rho_rerandomize=of(verdict.WITHIN, "rerandomize"),
    )


_NUMBERS = {
    "shift": "(a) re-initialised robust layers: mean |shift| [standard deviations over trained models]",
    "rerandomized": "the same layers re-randomised [standard deviations over trained models]",
    "area": "(b) AUC for telling robust from critical cases [0 to 1]",
    "within": "(b) over pairs of cases of the same layer [0 to 1]",
    "groups": "(c) AUC for telling re-initialised from re-randomised layers [0 to 1]",
    "rho_reinit": "Spearman's rho with the target among re-initialised layers, mean over layers [-1 to 1]",
    "rho_rerandomize": "the same among re-randomised layers [-1 to 1]",
}


def table(found: Iterable[Standing]) -> pa.Table:
    """A row a metric: rank, the numbers with intervals and status, and the tests passed."""
    made = []
    for rank, one in enumerate(found, start=1):
        sure = np.isfinite(one.strength())
        row: dict[str, Any] = {"rank": rank if sure else None, "metric": one.metric, "kind": one.kind}
        row |= {"better": one.better, "strength": one.strength(), "passes": one.passes()}
        for name in _NUMBERS:
            number: Number = getattr(one, name)
            row |= {name: number.estimate, f"{name}_lo": number.lo, f"{name}_hi": number.hi}
            row[f"{name}_status"] = number.status
        made.append(row)
    return pa.Table.from_pylist(made, schema=SCHEMA)


def _fields() -> list[pa.Field]:
    def field(name: str, kind: pa.DataType, text: str) -> pa.Field:
        return pa.field(name, kind, metadata={"description": text})

    made = [
        field("rank", pa.int64(), "by strength, from 1; null without an interval"),
        field("metric", pa.string(), "column that is judged"),
        field("kind", pa.string(), "data-free, data-based or own"),
        field("better", pa.string(), "direction that the field takes for good; empty: higher is counted as better"),
        field("strength", pa.float64(), "the lesser AUC of (b), from the metric's side: .5 is guessing [0 to 1]"),
        field("passes", pa.string(), "tests that it passes: letters, none, or empty where none could be made"),
    ]
    for name, text in _NUMBERS.items():
        made.append(field(name, pa.float64(), text))
        made += [field(f"{name}_{end}", pa.float64(), f"{end} end of the 95 % interval") for end in ("lo", "hi")]
        made.append(field(f"{name}_status", pa.string(), "ok, partial (some layers), or why there is no number"))
    return made


SCHEMA = pa.schema(_fields())
