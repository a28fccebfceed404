"""What a report shows of a search: what became of each sample, epoch by epoch, and by what was searched."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.report import target as targets
from raylab.report.layerwise import plural
from raylab.report.picture import INK, Panel, Picture, by_error
from raylab.report.samples import shown, told
from raylab.report.view import View
from raylab.results import frame, searched
from raylab.results.text import TextTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, OTHERS = "#0072B2", "#a7adb8"
WIDE = 20  # a key whose largest value is so many times the smallest gets a logarithmic axis
QUERY = "SELECT {keys}, max(epoch), max({column}) FROM trials WHERE layer IS NULL GROUP BY ALL ORDER BY ALL"


@dataclass(frozen=True)
class Sample:
    """One model, by the values that it was given."""

    values: Mapping[str, Any]  # searched column -> value
    epochs: NDArray[np.float64]  # (E,), rising; 0 where rows say none
    scores: NDArray[np.float64]  # (E,), in the target's column

    @property
    def last(self) -> float:
        """The score of its last epoch."""
        return float(self.scores[-1])


class Search(View):
    """The view of such results."""

    open_rows = 60

    def __init__(self, table: pa.Table) -> None:
        self.table = frame.ok(table)
        self.target = targets.of(table) or targets.ACCURACY
        seeds = len(set(frame.texts(table, "seed"))) > 1  # it has a column of its own, searched or not
        self.keys = [*searched.columns(table.schema), *(["seed"] if seeds else [])]
        self.query = QUERY.format(keys=", ".join(self.keys), column=self.target.column)

    @staticmethod
    def of(table: pa.Table) -> bool:
        """Whether these are rows of a search."""
        return bool(searched.columns(table.schema))

    @functools.cached_property
    def samples(self) -> list[Sample]:
        """Best first."""
        whole = frame.select(self.table, "", None)
        columns = [whole[name].to_pylist() for name in self.keys]
        score, epoch = frame.floats(whole, self.target.column), np.nan_to_num(frame.floats(whole, "epoch"))
        found: dict[tuple[Any, ...], list[int]] = {}
        for row, values in enumerate(zip(*columns, strict=True)):
            if np.isfinite(score[row]):
                found.setdefault(values, []).append(row)
        made = []
        for values, rows in found.items():
            order = np.array(rows)[np.argsort(epoch[rows], kind="stable")]
            made.append(Sample(dict(zip(self.keys, values, strict=True)), epoch[order], score[order]))
        return sorted(made, key=lambda sample: -self.target.better * sample.last)

    def findings(self) -> list[str]:
        """The best sample."""
        if not self.samples:
            return []
        best, column = self.samples[0], self.target.column
        given = ", ".join(f"{key} {told(value)}" for key, value in best.values.items())
        longest = max(float(each.epochs[-1]) for each in self.samples)
        early = sum(each.epochs[-1] < longest for each in self.samples)
        reached = f"{'an' if column == 'accuracy' else 'a'} {column} of {self._shown(best.last)}"
        said = f"Of {plural(len(self.samples), 'sample')}, the best reaches {reached}: {given}."
        return [
            said,
            *([f"{plural(early, 'sample')} with fewer epochs than the {longest:g} of others."] if early else []),
        ]

    def _shown(self, value: float) -> str:
        return shown(value, self.target.column) + (" %" if self.target.unit == "%" else "")

    def pictures(self) -> list[Picture]:
        """The target by epoch, and by each key."""
        if not self.samples:
            return []
        panels = [Panel(f"by {key}", lambda ax, key=key: self._by_key(ax, key), note=key) for key in self.keys]
        if any(len(each.epochs) > 1 for each in self.samples):
            panels = [Panel("by epoch", self._by_epoch, note="each sample, epoch by epoch"), *panels]
        by = "; on a logarithmic axis of the error" * (self.target is targets.ACCURACY)
        caption = f"The {self.target.column} of every sample; blue: the best. By key: after its last epoch{by}."
        return [Picture("samples", "What was searched", caption, panels, columns=3)]

    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""
        return [] if drawn else ["samples (none was evaluated)"]

    def tables(self) -> list[TextTable]:
        """The samples, best first."""
        header = [*self.keys, f"{self.target.column} [{self.target.unit}]", "epochs"]
        rows = [
            [
                *(told(value) for value in each.values.values()),
                shown(each.last, self.target.column),
                f"{each.epochs[-1]:g}",
            ]
            for each in self.samples
        ]
        texts = [
            at for at, key in enumerate(self.keys) if any(isinstance(each.values[key], str) for each in self.samples)
        ]
        return [TextTable("Samples, best first", header, rows, texts=texts)] if rows else []

    def files(self) -> Mapping[str, tuple[str, pa.Table]]:
        """Every epoch of every sample."""
        column = self.target.column
        rows = [
            {"rank": rank, **each.values, "epoch": epoch, column: score}
            for rank, each in enumerate(self.samples, start=1)
            for epoch, score in zip(each.epochs.tolist(), each.scores.tolist(), strict=True)
        ]
        return {"samples.csv": (f"The {column} of every sample and epoch", pa.Table.from_pylist(rows))} if rows else {}

    def _by_epoch(self, ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for rank, each in reversed(list(enumerate(self.samples))):
            look = {"color": OTHERS, "linewidth": 0.9} if rank else {"color": BEST, "linewidth": 2.0}
            ax.plot(each.epochs, self.target.scale * each.scores, marker="o", markersize=2.4, **look)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.set_xlabel("epoch")
        self._target_axis(ax)

    def _by_key(self, ax: Axes, key: str) -> None:
        values = [each.values[key] for each in self.samples]
        scores = [self.target.scale * each.last for each in self.samples]
        if any(isinstance(value, str) or value is None for value in values):
            names = sorted({str(value) for value in values})
            places = [names.index(str(value)) for value in values]
            ax.set_xticks(range(len(names)), names, rotation=0 if len("".join(names)) < 24 else 20)
            ax.set_xlim(-0.6, len(names) - 0.4)
        else:
            places = values
            if min(values) > 0 and max(values) > WIDE * min(values):
                ax.set_xscale("log")
        ax.plot(places, scores, linestyle="", marker="o", color=OTHERS, markersize=4.5)
        ax.plot(places[:1], scores[:1], linestyle="", marker="o", color=BEST, markersize=6, markeredgecolor=INK)
        ax.set_xlabel(key)
        self._target_axis(ax)

    def _target_axis(self, ax: Axes) -> None:
        ax.set_ylabel(self.target.axis)
        if self.target is targets.ACCURACY:
            every = self.target.scale * np.concatenate([each.scores for each in self.samples])
            by_error(ax, float(every.min()), float(every.max()))
