"""The samples of a search: which values were tried, how far each came, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raylab.results.text import TextTable, number, significant

PERCENT = ("accuracy", "top5")
# Columns of samples.parquet beside those of the searched keys, which come first, and the metric.
EPOCHS, PLANNED, ENDED = "epochs", "epochs_planned", "ended"
FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"


def ranked(samples: Sequence[Mapping[str, Any]], metric: str, mode: str) -> list[Mapping[str, Any]]:
    """Best first; without a value last, failed ones at the very end."""
    sign = -1 if mode == "max" else 1

    def place(sample: Mapping[str, Any]) -> tuple[bool, float]:
        value = sample[metric]
        return sample[ENDED] == FAILED, sign * value if value is not None and math.isfinite(value) else math.inf

    return sorted(samples, key=place)


def samples_table(table: pa.Table, metric: str) -> TextTable:
    """The samples as they lie in samples.parquet, as text."""
    keys = table.schema.names[: table.schema.names.index(metric)]
    rows = table.to_pylist()
    with_epochs = any(row[EPOCHS] is not None for row in rows)
    name = f"{metric} [%]" if metric in PERCENT else metric
    header = [*keys, name, *(["epochs"] if with_epochs else []), "ended"]
    lines = []
    for row in rows:
        cells = [told(row[key]) for key in keys] + [shown(row[metric], metric)]
        lines.append([*cells, *([_epochs(row)] if with_epochs else []), row[ENDED]])
    texts = {place for place, key in enumerate(keys) if pa.types.is_string(table.schema.field(key).type)}
    return TextTable(f"Samples: {len(rows)}, best first", header, lines, {*texts, len(header) - 1}, _note(rows))


def shown(value: float | None, metric: str) -> str:
    """A metric's value to read."""
    if value is None or not math.isfinite(value):
        return "–"
    return number(100 * value, 2) if metric in PERCENT else number(value)


def told(value: Any) -> str:
    """A value that was searched, to read."""
    return significant(value) if isinstance(value, float) else str(value)


def _epochs(row: Mapping[str, Any]) -> str:
    if row[EPOCHS] is None:
        return "–"
    return f"{row[EPOCHS]}" if row[EPOCHS] == row[PLANNED] else f"{row[EPOCHS]} of {row[PLANNED]}"


def _note(rows: Sequence[Mapping[str, Any]]) -> str:
    stopped = sum(row[ENDED] == STOPPED for row in rows)
    failed = sum(row[ENDED] == FAILED for row in rows)
    notes = [f"{stopped} of {len(rows)} stopped early by ASHA"] if stopped else []
    notes += [f"{failed} failed"] if failed else []
    return f"{', '.join(notes)}." if notes else ""
