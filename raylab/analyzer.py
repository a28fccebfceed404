"""One model, one table: the spectral metrics of every layer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raylab.errors import UserError
from raylab.layers import Skipped, measurable, size_columns, weights
from raylab.models.sources import open_model
from raylab.spectral import columns, measure_many, measure_spectrum, resolve, slice_spectra, why_failed
from raylab.spectral.parallel import in_threads
from raylab.types import Layer, Metric, SpectralOptions, Value

if TYPE_CHECKING:
    import pyarrow as pa

# The columns that every table starts with, whatever the metrics.
LEADING = ("layer", "kind", "N", "M", "matrices", "alpha", "D", "xmin", "sigma", "num_tail", "status")


def analyze(
    model: Any,
    metrics: Sequence[str | Metric] = ("standard", "marchenko_pastur"),
    options: SpectralOptions | None = None,
    layers: Sequence[str] = ("*",),
    threads: int | None = None,
) -> pa.Table:
    """The spectral metrics of a model, a row a layer, in the order of the model.

    model: a torch module, a mapping of names to arrays or tensors (a state dict), or whatever
    `raylab.models.sources.open_model` opens: a file, a folder, a name. metrics: names ("standard",
    "marchenko_pastur", "my_lab:entropy") or functions of a Spectrum; "randomized" can be added, for the control with
    permuted entries (num_traps, rand_...). layers: shell-style patterns of layer names.
    threads: layers measured side by side on a CPU, None for one a core; the values do not depend on it.
    Columns: `layer, kind, N, M, matrices` (how many N x M matrices a row pools), then `alpha, D, xmin, sigma, num_tail`
    if a metric gives them, `status` ("ok"; "failed", no power law fitted; "skipped"), `reason`, `dtype` (float64, or
    float32 where that was asked for), then all others;
    conv="slices" adds `slice`, a row each.
    Raises UserError for bad input: an unknown metric or option, a pattern that matches nothing, a model without layers.
    """
    options = options or SpectralOptions()
    return table_of(*rows_of(model, metrics, options, layers, threads))


def rows_of(
    model: Any,
    metrics: Sequence[str | Metric],
    options: SpectralOptions,
    layers: Sequence[str] = ("*",),
    threads: int | None = None,
) -> tuple[list[dict[str, Value]], dict[str, type]]:
    """What `analyze` makes a table of: its rows, and the types of the columns that the metrics give."""
    if threads is not None and threads < 1:
        raise UserError(f"threads={threads} must be at least 1: leave it out for one a core.")
    if isinstance(model, (str, os.PathLike)):
        model = open_model(model).model
    metrics = [metrics] if isinstance(metrics, str) else metrics
    layers = [layers] if isinstance(layers, str) else layers
    functions = [resolve([metric])[0] if isinstance(metric, str) else metric for metric in metrics]
    types = columns(functions, options) | ({"slice": int} if options.conv == "slices" else {})
    fitting, skipped = measurable(model, options, layers)
    measured = _measure(model, fitting, functions, options, threads)
    rows = [(layer.index, _row(layer, values, options)) for layer, values in measured]
    rows += [(item.layer.index, _skipped_row(item, options)) for item in skipped]
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])], types


def _measure(
    model: Any, layers: Sequence[Layer], metrics: Sequence[Metric], options: SpectralOptions, threads: int | None
) -> list[tuple[Layer, dict[str, Value]]]:
    tensors = weights(model, options)
    if options.conv != "slices":
        items = [(tensors[layer.name], layer) for layer in layers]
        return list(zip(layers, measure_many(items, metrics, options, threads=threads), strict=True))

    def work(layer: Layer) -> list[dict[str, Value]]:
        return [measure_spectrum(one, metrics) for one in slice_spectra(tensors[layer.name], layer, options)]

    measured = in_threads(work, layers, 1)
    return [
        (layer, {**values, "slice": index})
        for layer, rows in zip(layers, measured, strict=True)
        for index, values in enumerate(rows)
    ]


def _row(layer: Layer, values: dict[str, Value], options: SpectralOptions) -> dict[str, Value]:
    reason = why_failed(values)
    return {**_identity(layer, options), **values, "status": "failed" if reason else "ok", "reason": reason}


def _skipped_row(item: Skipped, options: SpectralOptions) -> dict[str, Value]:
    return {**_identity(item.layer, options), "status": "skipped", "reason": item.reason}


def _identity(layer: Layer, options: SpectralOptions) -> dict[str, Value]:
    row: dict[str, Value] = {"layer": layer.name, "kind": layer.kind, "dtype": options.dtype}
    return row | size_columns(layer, options.conv, options.groups)


def table_of(rows: Sequence[dict[str, Value]], types: Mapping[str, type]) -> pa.Table:
    """What `rows_of` gives, as a table."""
    import pyarrow as pa

    from raylab.results.columns import ARROW
    from raylab.results.schema import described

    sizes: dict[str, type] = {"N": int, "M": int, "matrices": int}
    kinds: dict[str, type] = {"layer": str, "kind": str, **sizes, "status": str, "reason": str, "dtype": str, **types}
    names = [name for name in LEADING if name in kinds]
    names += [name for name in kinds if name not in names]
    schema = pa.schema([described(name, ARROW[kinds[name]]) for name in names])
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], schema=schema)
