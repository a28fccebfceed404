"""Metrics by name, the columns they give, and their values for a layer.

A metric may come from anywhere, so nothing it does may cost the values of another: one that raises gives NaN, and
the column `metric_error` says which and why.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from raylab.errors import UserError
from raylab.layers import check_treatments, matrices_shape
from raylab.registry import Registry, suggest
from raylab.spectral.backend import GPUS, STACK_BYTES, load, resolve_device
from raylab.spectral.esd import spectra, spectrum
from raylab.spectral.farms import check_windows
from raylab.spectral.metrics import METRICS
from raylab.spectral.parallel import cores, in_threads
from raylab.spectral.power_law import ESTIMATORS, WHY_NO_FIT, fit_evals
from raylab.spectral.uncertainty import check_replicas
from raylab.types import Layer, Metric, SpectralOptions, Spectrum, Value, digest

METRICS_VERSION = 1  # raised whenever a metric of ours may give another value than before
ERROR_COLUMN = "metric_error"
LANES = 8  # layers that are solved together on a CPU
BATCH_ENTRIES = 1 << 24  # of their weights, so that no more than 64 MiB of float32 beyond one layer are read at a time


def resolve(names: Sequence[str]) -> list[Metric]:
    """The metrics of those names: registered ("standard") or anybody's own ("my_lab:entropy").

    Raises UserError for an unknown name, or one that points to something that cannot be called.
    """
    metrics = [METRICS.resolve(name) for name in names]
    for name, metric in zip(names, metrics, strict=True):
        if not callable(metric):
            raise UserError(f"The metric '{name}' is a {type(metric).__name__}, not a function of a Spectrum.")
    return metrics


def columns(metrics: Sequence[Metric], options: SpectralOptions | None = None) -> dict[str, type]:
    """Name and type (float, int, str, list of floats) of every column, found by trying the metrics on a small spectrum.

    Raises UserError in one line for options that do not exist, a metric that fails, and two that give one column.
    """
    options = options or SpectralOptions()
    check(options)
    owners: dict[str, str] = {ERROR_COLUMN: "raylab"}
    types: dict[str, type] = {}
    for metric in metrics:
        for column, kind in _columns_of(metric, options).items():
            if column in owners:
                raise UserError(f"Two metrics give the column '{column}': {owners[column]} and {_name(metric)}.")
            owners[column] = _name(metric)
            types[column] = kind
    return {**types, ERROR_COLUMN: str}


def check(options: SpectralOptions) -> None:
    """Raise UserError where an option is not one of those that exist, or its device is not there."""
    resolve_device(options.device)
    check_replicas(options)
    check_windows(options)
    fit_evals(np.arange(1.0, 5.0), options)
    check_treatments(options.conv, options.groups)
    if options.dtype not in ("float64", "float32"):
        raise UserError(f"Unknown dtype={options.dtype}.{suggest(options.dtype, ('float64', 'float32'))}")


def measure(
    weights: Any,
    layer: Layer,
    metrics: Sequence[Metric],
    options: SpectralOptions | None = None,
    seed: int = 0,
) -> dict[str, Value]:
    """The value of every column for one layer. weights: its tensor, numpy or torch; seed: of the permuted control."""
    return measure_many([(weights, layer)], metrics, options, [seed])[0]


def measure_many(
    items: Sequence[tuple[Any, Layer]],
    metrics: Sequence[Metric],
    options: SpectralOptions | None = None,
    seeds: Sequence[int] | None = None,
    threads: int | None = 1,
) -> list[dict[str, Value]]:
    """`measure` for many layers: on a GPU those of one shape are solved together, on a CPU layers side by side.

    Weights that are read when they are asked for (`numpy.asarray`) are read a batch at a time, and let go of again.
    threads: None for all cores of the CPU, or one beside a GPU. The values do not depend on it.
    """
    options = options or SpectralOptions()
    seeds = seeds if seeds is not None else [0] * len(items)

    def work(batch: Sequence[int]) -> list[dict[str, Value]]:
        chosen = spectra([items[i] for i in batch], options, [seeds[i] for i in batch])
        return [measure_spectrum(spectrum, metrics) for spectrum in chosen]

    layers = [layer for _, layer in items]
    shapes = [matrices_shape(layer, options.conv, options.groups) for layer in layers]
    load(options.device, max((M for _, _, M in shapes), default=0))
    threads = threads or threads_of(options)
    work_list = batches(layers, options, threads)
    measured = in_threads(work, work_list, threads)
    values = {
        i: row for batch, rows in zip(work_list, measured, strict=True) for i, row in zip(batch, rows, strict=True)
    }
    return [values[i] for i in range(len(items))]


def why_failed(values: Mapping[str, Value]) -> str | None:
    """Why a layer with these values has no power law, in words; None where it has one, or none was asked for."""
    status = str(values.get("fit_status", "ok"))
    return None if status == "ok" else f"no power law: {WHY_NO_FIT.get(status, status)}"


def threads_of(options: SpectralOptions) -> int:
    """How many layers, or batches of them, are best worked side by side: one a core, and one on a GPU."""
    return 1 if resolve_device(options.device) in GPUS else cores()


def batches(layers: Sequence[Layer], options: SpectralOptions, threads: int = 1) -> list[list[int]]:
    """Which layers are best worked together, by their place, the most expensive first.

    On a GPU those of one shape, as many as it can take; on a CPU those of one short side, which numba solves side by
    side, but no fewer batches than threads.
    """
    shapes = [matrices_shape(layer, options.conv, options.groups) for layer in layers]
    gpu = resolve_device(options.device) in GPUS
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, (_, N, M) in enumerate(shapes):
        alike[(N, M) if gpu else (M,)].append(i)
    made: list[list[int]] = []
    for members in alike.values():
        most = len(members) if gpu else min(LANES, -(-len(members) // threads))
        room = 0
        for i in members:
            count, N, M = shapes[i]
            if room < count * N * M or len(made[-1]) == most:
                made.append([])
                room = STACK_BYTES // 8 if gpu else BATCH_ENTRIES
            made[-1].append(i)
            room -= count * N * M
    cost = [gram_cost(layer, options) for layer in layers]
    return sorted(made, key=lambda batch: -sum(cost[i] for i in batch))


def gram_cost(layer: Layer, options: SpectralOptions) -> float:
    """Multiplications of a layer's Gram matrices: what measuring it takes is about in proportion."""
    count, N, M = matrices_shape(layer, options.conv, options.groups)
    return float(count * N * M**2)


def measure_spectrum(spectrum: Spectrum, metrics: Sequence[Metric]) -> dict[str, Value]:
    """The value of every column for one spectrum. A metric that raises gives NaN (None for what is no float).

    So does one that gives something else than it gave for the small test spectrum: text where there was a number.
    """
    values: dict[str, Value] = {}
    errors: list[str] = []
    for metric in metrics:
        expected = _columns_of(metric, spectrum.options)
        try:
            given = _as_mapping(metric, metric(spectrum))
            values |= {column: _convert(column, given[column], kind) for column, kind in expected.items()}
        except Exception as error:
            values |= {column: math.nan if kind is float else None for column, kind in expected.items()}
            errors.append(f"{_name(metric)}: {type(error).__name__}: {error}")
        else:
            errors += _complaints(metric, values, expected)
    return {**values, ERROR_COLUMN: "; ".join(errors) or None}


def version(names: Sequence[str], options: SpectralOptions | None = None) -> str:
    """Digest of all that decides the values: the names, the options but the device, our version, a user's own code."""
    settings = asdict(options or SpectralOptions())
    del settings["device"]  # devices agree to rounding, and a run may move from one to another
    sources = [_source(METRICS, name) for name in sorted(names)] + [_source(ESTIMATORS, settings["estimator"])]
    return digest([METRICS_VERSION, sorted(names), settings, sources])


def probe_spectrum(options: SpectralOptions) -> Spectrum:
    """A small heavy-tailed spectrum, always the same, on which every metric should work."""
    weights = np.random.default_rng(0).standard_t(3, size=(40, 24)) / 40
    layer = Layer("probe", 0, "linear", weights.shape)
    cpu = SpectralOptions(**{**asdict(options), "device": "numpy", "conv": "pooled"})
    return spectrum(weights, layer, cpu)


def _columns_of(metric: Metric, options: SpectralOptions) -> dict[str, type]:
    return _probe(metric, tuple(vars(options).values()))


@functools.lru_cache(maxsize=256)
def _probe(metric: Metric, options: tuple[Any, ...]) -> dict[str, type]:
    name = _name(metric)
    try:
        plain = metric(probe_spectrum(SpectralOptions(**_named(options))))
    except Exception as error:
        raise UserError(
            f"The metric '{name}' fails on a small test spectrum: {type(error).__name__}: {error}."
        ) from error
    if isinstance(plain, str):  # beside numbers, by a name of its own, text is welcome: why there are none
        raise UserError(f"The metric '{name}' gives text, {str(plain)[:20]!r}: return a number, or several by name.")
    return {column: _type_of(value, name, column) for column, value in _as_mapping(metric, plain).items()}


def _named(options: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(asdict(SpectralOptions()), options, strict=True))


def _type_of(value: object, metric: str, column: object) -> type:
    kind = _kind_of(value)
    if not isinstance(column, str):
        raise UserError(f"The metric '{metric}' names a column {column!r}: give its values names, as text.")
    if kind is None:
        what = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(
            f"The metric '{metric}' gives {'an' if what[0] in 'aeiou' else 'a'} {what} for '{column}': it must be a "
            "float, an int, or a 1-D array of them (or, beside these, a str)."
        )
    return kind


def _kind_of(value: object) -> type | None:
    """The type of column that a value belongs into; None where it belongs into none."""
    if isinstance(value, np.ndarray):
        return list if value.ndim == 1 and value.dtype.kind in "fiub" else None
    if isinstance(value, str):
        return str
    if isinstance(value, numbers.Integral):  # a bool counts as one
        return int
    return float if isinstance(value, numbers.Real) else None


def _as_mapping(metric: Metric, given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {_name(metric): given}


def _convert(column: str, value: Any, kind: type) -> Value:
    """A plain Python value for a row: NaN for what is missing from a float column. TypeError for another kind.

    Neither text that looks like a number is one, nor is a fraction a count: it would be cut off.
    """
    if value is None:
        return math.nan if kind is float else None
    found = _kind_of(value)
    if found is not kind and (found, kind) != (int, float):
        given = repr(value[:20]) if isinstance(value, str) else value if found else type(value).__name__
        raise TypeError(f"{column} is {given}, and was {_WORDS[kind]} for the small test spectrum")
    return np.asarray(value, np.float64) if kind is list else kind(value)


_WORDS: dict[type, str] = {float: "a float", int: "an int", str: "text", list: "an array"}


def _complaints(metric: Metric, values: Mapping[str, Value], expected: Mapping[str, type]) -> list[str]:
    """A user's metric without a number should be seen. Ours say so in their own status columns."""
    if getattr(metric, "__module__", "").startswith("raylab."):
        return []
    given = {column: values[column] for column in expected}
    bad = {column: value for column, value in given.items() if isinstance(value, float) and not math.isfinite(value)}
    return [f"{_name(metric)}: {column} is {value}" for column, value in bad.items()]


def _name(metric: Callable[..., Any]) -> str:
    return getattr(metric, "__name__", type(metric).__name__)


def _source(registry: Registry[Any], name: str) -> str:
    """The source text of what is not ours, so that an edited metric is measured anew."""
    if name in registry:
        return ""
    item = registry.resolve(name)
    try:
        return inspect.getsource(item if inspect.isroutine(item) else type(item))
    except (OSError, TypeError):
        return ""
