"""The one Arrow schema of a results folder, and rows of it. What the columns mean: raylab.results.columns.

A row is a trial: its identity, the layer it was about, the columns that its experiment declares (accuracy, alpha, ...),
its outcome and its provenance. Descriptions travel with the data, as the Arrow field metadata `description`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from raylab.results.columns import ARROW, IDENTITY, KNOWN, LAYER, OUTCOME, PROVENANCE
from raylab.types import TrialResult


def schema(columns: Mapping[str, type]) -> pa.Schema:
    """The schema of an experiment: identity, layer, the declared `columns`, outcome, provenance.

    Raises ValueError for a type other than float, int, str and list, or a declared name that means something else here.
    """
    fields = {name: described(name, column.type) for name, column in {**IDENTITY, **LAYER}.items()}
    for name, kind in columns.items():
        if kind not in ARROW:
            raise ValueError(f"column '{name}' is declared as {kind!r}: use float, int, str or list")
        fixed = {**IDENTITY, **LAYER, **OUTCOME, **PROVENANCE}.get(name)
        if fixed and fixed.type != ARROW[kind]:
            raise ValueError(f"column '{name}' is fixed as {fixed.type}, not {kind.__name__}: choose another name")
        fields.setdefault(name, described(name, ARROW[kind]))
    for name, column in {**OUTCOME, **PROVENANCE}.items():
        fields.setdefault(name, described(name, column.type))
    return pa.schema(list(fields.values()))


def described(name: str, kind: pa.DataType) -> pa.Field:
    """A field with what is known of it: its description and group."""
    known = KNOWN.get(name)
    group, text = (known.group, known.description) if known else _unknown(name)
    return pa.field(name, kind, metadata={"description": text, "group": group})


def _unknown(name: str) -> tuple[str, str]:
    control = KNOWN.get(name.removeprefix("rand_")) if name.startswith("rand_") else None
    if control:
        return "spectral", f"permuted-entries control (seeded): {control.description}"
    return "own", "a metric of the user's own"


def group(field: pa.Field) -> str:
    """Which group a column belongs to, as KNOWN or the file says; "own" where neither does."""
    known = KNOWN.get(field.name)
    return known.group if known else (field.metadata or {}).get(b"group", b"own").decode()


def description(field: pa.Field) -> str:
    """The one-line description of a column."""
    known = KNOWN.get(field.name)
    return (field.metadata or {}).get(b"description", b"").decode() or (known.description if known else "")


def metric_columns(fields: Iterable[pa.Field]) -> list[str]:
    """The numeric columns that measure a layer: similarity, spectral and the user's own."""
    measured = ("similarity", "spectral", "own")
    return [
        field.name
        for field in fields
        if group(field) in measured and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]


def markdown(of: pa.Schema) -> str:
    """The columns as a Markdown table: name, type, group, description."""
    lines = ["| column | type | group | description |", "|---|---|---|---|"]
    for field in of:
        text = description(field).replace("|", "\\|")
        lines.append(f"| `{field.name}` | {field.type} | {group(field)} | {text} |")
    return "\n".join(lines)


def row(result: TrialResult, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A result as a flat row: identity, values, outcome, provenance.

    A worker may report provenance of its own (`device`, `dtype`) among its values: it wins over the run's.
    `finished_at` is now unless given.
    """
    trial = result.trial
    identity = {name: getattr(trial, name) for name in IDENTITY if name != "trial_id"}
    outcome = {name: getattr(result, name) for name in OUTCOME}
    return {
        "finished_at": datetime.now(UTC),
        **provenance,
        **result.values,
        "trial_id": trial.id,
        **identity,
        **outcome,
    }


def table(rows: Sequence[Mapping[str, Any]], to: pa.Schema) -> pa.Table:
    """Rows, each of `cells` of that schema, as a table: a missing entry is null."""
    return pa.table([pa.array([row.get(field.name) for row in rows], field.type) for field in to], schema=to)


def cells(row: Mapping[str, Any], to: pa.Schema) -> dict[str, Any]:
    """The entries of a row as they will be written, numpy scalars taken for what they are; may be given again.

    Raises ValueError for an entry that the schema does not have, or that is not of its column's type.
    """
    kinds = _kinds(to)
    taken: dict[str, Any] = {}
    for name, value in row.items():
        if name not in kinds:
            raise ValueError(f"column '{name}' was not declared by the experiment")
        if value is None:
            continue
        kind, take = kinds[name]
        try:
            taken[name] = take(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"column '{name}' is {kind}, and {value!r} is not") from error
    return taken


@functools.lru_cache(maxsize=8)
def _kinds(of: pa.Schema) -> dict[str, tuple[pa.DataType, Callable[[Any], Any]]]:
    return {field.name: (field.type, _taker(field.type)) for field in of}


def _taker(kind: pa.DataType) -> Callable[[Any], Any]:
    """What makes a cell of a value. Raises TypeError or ValueError for one of another kind."""
    if pa.types.is_floating(kind):
        return float
    if pa.types.is_integer(kind):
        return _integer
    if pa.types.is_list(kind):
        return _numbers
    return _utc if pa.types.is_timestamp(kind) else _text


def _numbers(value: Any) -> Any:
    return np.asarray(value, np.float64)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _integer(value: Any) -> int | None:
    """A count that a metric computed in floating point; NaN, which integers lack, is null."""
    if not hasattr(value, "is_integer"):
        return operator.index(value)
    if math.isnan(value):
        return None
    if not float(value).is_integer():
        raise ValueError("not a whole number")
    return int(value)


def _utc(value: datetime | str) -> datetime:
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
