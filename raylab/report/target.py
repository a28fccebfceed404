"""What the layers of a run are held against: accuracy, or the loss where rows are about texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.results import frame
from raylab.results.text import number
from raylab.types import ORIGINAL


@dataclass(frozen=True)
class Target:
    """A column that says how well a model does, and how a person reads it."""

    column: str
    unit: str
    scale: float  # from the column to the unit
    digits: int  # of a number in the unit
    difference: str  # what a difference is counted in
    better: int  # 1: more of it is better; -1: less
    robust: float  # a perturbation that costs at most so much (in the unit) costs little
    # Beyond this a perturbation destroys the model: the share that it leaves, or what it adds.
    critical: float

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.column} [{self.unit}]"

    def values(self, table: pa.Table) -> NDArray[np.float64]:
        """The column in its unit; NaN where a row has none, or one that is not finite."""
        values = self.scale * frame.floats(table, self.column)
        return np.where(np.isfinite(values), values, np.nan)

    def baseline(self, results: pa.Table) -> frame.Mean:
        """Mean over the unperturbed models, in the unit: from their own rows, else those of unperturbed layers."""
        mean = frame.mean_over_models(frame.select(results, "", None), self.column)
        mean = mean if mean.n else frame.mean_over_models(frame.select(results, None, ORIGINAL), self.column)
        return frame.Mean(self.scale * mean.mean, self.scale * mean.sem, mean.n)

    def text(self, value: float) -> str:
        """A value with its unit: "81.03 %", "3.399 nats"."""
        return f"{number(value, self.digits)} {self.unit}"

    def cost(self, whole: float, left: float) -> float:
        """What a perturbation costs, in the unit; negative where it helps."""
        return self.better * (whole - left)

    def robust_limit(self, whole: float) -> float:
        """The worst that a robust layer leaves."""
        return whole - self.better * self.robust

    def critical_limit(self, whole: float) -> float:
        """A layer that leaves worse than this is critical."""
        return self.critical * whole if self.better > 0 else whole + self.critical

    def is_critical(self, whole: float, left: float) -> bool:
        """Whether what is left is worse than the limit."""
        return self.better * (self.critical_limit(whole) - left) > 0


ACCURACY = Target("accuracy", "%", 100.0, 2, "points", 1, robust=10.0, critical=0.5)
# 0.1 nats make the perplexity a tenth larger, 1 nat makes it 2.7 times as large.
LOSS = Target("loss", "nats", 1.0, 3, "nats", -1, robust=0.1, critical=1.0)


def of(table: pa.Table) -> Target | None:
    """The target of a results table; None where nothing was evaluated. A language model's is its loss.

    The perplexity of a broken model is beyond any axis; its logarithm is the loss, and ranks the same.
    """
    results = frame.ok(table) if "status" in table.column_names else table

    def has(name: str) -> bool:
        return bool(np.isfinite(frame.floats(results, name)).any())

    if has("accuracy") and not has("perplexity"):
        return ACCURACY
    return LOSS if has("loss") else ACCURACY if has("accuracy") else None
