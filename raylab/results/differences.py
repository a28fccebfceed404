"""What a perturbation changes: each number of a perturbed layer less that of the same layer as it was trained.

The original of a layer is a row of its own, and the difference is derived from the two, never stored. Within a layer a
metric and its difference are ordered alike; across layers they are not, as layers differ in size and scale.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.results import frame, schema
from raylab.types import ORIGINAL

PREFIX = "d_"
KEPT = (
    "trial_id", "experiment", "model", "replicate", "checkpoint", "data", "seed", "layer", "layer_index", "kind", "N",
    "M", "perturbation", "draw", "status",
)  # fmt: skip
# A row and what it is compared with are of one model, evaluated on the same data, measured in the same way.
SAME = (*frame.MODEL, "data", "metrics", "protocol")
EVALUATED = ("accuracy", "top5", "loss", "perplexity")  # less that of the unperturbed model
MEASURED = ("spectral", "fit", "own")  # groups of columns; less that of the unperturbed layer


def differences(table: pa.Table) -> pa.Table:
    """A row for each perturbed row that is ok: what tells it apart, and a column d_NAME for every number NAME.

    d_accuracy, d_top5, d_loss and d_perplexity: less the baseline's. Numbers that describe a layer (alpha, xmin,
    entropy, metrics of a user's own): less those of the layer in the same model, unperturbed. NaN where either is
    missing, not finite, or of a row that failed.
    """
    table = frame.ok(table)
    whole = frame.texts(table, "layer") == ""
    original = frame.texts(table, "perturbation") == ORIGINAL
    perturbed = np.flatnonzero(~whole & ~original)
    of_layer = _reference(frame.codes(table, *SAME, "layer"), ~whole & original)[perturbed]
    of_model = _reference(frame.codes(table, *SAME), whole)[perturbed]
    made = table.select([name for name in KEPT if name in table.column_names]).take(pa.array(perturbed))
    for field in _numbers(table.schema):
        reference = of_model if field.name in EVALUATED else of_layer
        change = _change(frame.floats(table, field.name), perturbed, reference)
        made = made.append_column(_described(field), pa.array(change))
    return made


def names(of: pa.Schema) -> list[str]:
    """The differences that correlations are about: of metrics, which a similarity to the original is not."""
    about = {field.name for field in _numbers(of)}
    return [PREFIX + name for name in schema.metric_columns(of) if name in about]


def needed(of: pa.Schema) -> list[str]:
    """The columns of a results folder that the differences are made from."""
    own = {*KEPT, *SAME, *(field.name for field in _numbers(of))}
    return [name for name in of.names if name in own]


def _numbers(fields: Iterable[pa.Field]) -> list[pa.Field]:
    return [
        field
        for field in fields
        if (field.name in EVALUATED or schema.group(field) in MEASURED)
        and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]


def _reference(codes: NDArray[np.intp], which: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For each row the first row of the same code among `which`; -1 where there is none."""
    first = np.full(codes.max(initial=-1) + 1, -1, dtype=np.intp)
    places = np.flatnonzero(which)[::-1]
    first[codes[places]] = places
    return first[codes]


def _change(values: NDArray[np.float64], rows: NDArray[np.intp], reference: NDArray[np.intp]) -> NDArray[np.float64]:
    before = np.where(reference >= 0, values[reference], np.nan) if len(values) else np.zeros(0)
    both = np.isfinite(values[rows]) & np.isfinite(before)
    return np.subtract(values[rows], before, out=np.full(len(rows), np.nan), where=both)


def _described(field: pa.Field) -> pa.Field:
    against = "the unperturbed model's" if field.name in EVALUATED else "that of the layer as it was trained"
    text = f"{field.name} less {against}: {schema.description(field)}"
    return pa.field(PREFIX + field.name, pa.float64(), metadata={"description": text, "group": schema.group(field)})
