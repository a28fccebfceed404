"""The plan and the results as tables. Each is a TextTable: print it with rich, or take its `markdown()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raylab.report import labels, spectra
from raylab.results import frame, schema
from raylab.results.correlate import MIN_UNITS
from raylab.results.text import TextTable, number, p_value
from raylab.types import Trial

SHOWN_LAYERS = 24  # of a plan; of more, the first half and their number
SKIPPED_NAMES = 3  # layers named for each reason why some are left out
GOOD = ("ok", "partial")  # status of a correlation that has numbers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is about to do."""

    trials: Sequence[Trial]  # all of the experiment
    done: Collection[str] = ()  # ids with a row already
    failed: Collection[str] = ()  # ids whose failed row will be tried again
    skipped: Mapping[str, str] = field(default_factory=dict)  # layer -> why it is left out
    work: Mapping[str, str] = field(default_factory=dict)  # "models to train" -> "5, about 20 s each"


def plan_table(plan: Plan) -> TextTable:
    """How many trials by layer and perturbation, and what is done and to do."""
    counts = Counter((trial.layer, trial.perturbation) for trial in plan.trials)
    layers = list(dict.fromkeys(trial.layer for trial in plan.trials))
    perturbations = list(dict.fromkeys(trial.perturbation for trial in plan.trials))
    done = Counter(trial.layer for trial in plan.trials if trial.id in plan.done)
    rows = []
    for layer in layers:
        each = [counts[layer, perturbation] for perturbation in perturbations]
        to_run = sum(each) - done[layer]
        name = "baseline" if layer is None else layer
        rows.append([name, *(f"{n:,}" if n else "" for n in each), f"{done[layer]:,}", f"{to_run:,}"])
    if len(rows) > SHOWN_LAYERS:
        more = f"... {len(rows) - SHOWN_LAYERS // 2:,} more layers"
        rows = [*rows[: SHOWN_LAYERS // 2], [more, *[""] * (len(rows[0]) - 1)]]
    every = [sum(counts[layer, perturbation] for layer in layers) for perturbation in perturbations]
    finished = sum(done.values())
    rows.append(["all", *(f"{n:,}" for n in every), f"{finished:,}", f"{len(plan.trials) - finished:,}"])
    made = ["trials"] if perturbations == [frame.ORIGINAL] else [labels.style(name).name for name in perturbations]
    header = ["layer", *made, "done", "to run"]
    return TextTable(f"Plan: {len(plan.trials):,} trials", header, rows, note="\n".join(_plan_notes(plan)))


def _plan_notes(plan: Plan) -> list[str]:
    again = sum(trial.id in plan.failed for trial in plan.trials)
    notes = [f"{again:,} failed in an earlier run and will be tried again."] if again else []
    return notes + _skipped_notes(plan.skipped) + [f"{what}: {much}" for what, much in plan.work.items()]


def _skipped_notes(skipped: Mapping[str, str]) -> list[str]:
    """Layers by the reason why they are left out."""
    by_reason: dict[str, list[str]] = {}
    for layer, why in skipped.items():
        by_reason.setdefault(why, []).append(layer)
    notes = []
    for why, layers in by_reason.items():
        named = ", ".join(layers[:SKIPPED_NAMES])
        more = f" and {len(layers) - SKIPPED_NAMES} more" if len(layers) > SKIPPED_NAMES else ""
        plural, verb = ("s", "are") if len(layers) > 1 else ("", "is")
        notes.append(f"Layer{plural} {named}{more} {verb} skipped: {why}")
    return notes


def summary(table: pa.Table, correlations: pa.Table) -> list[TextTable]:
    """What a person wants to see at the end of a run: accuracy and alpha by layer, and every metric's correlation.

    Of spectra alone: the layers, as many as a terminal bears, and the models.
    """
    if spectra.alone(table):
        models, *layers = spectra.tables(table, spectra.TERMINAL_ROWS)
        return [*layers[: spectra.MODELS], models]
    measured = schema.metric_columns(table.schema)
    own = [name for name in measured if schema.group(table.schema.field(name)) == "own"]
    shown = {*labels.PRIMARY, *labels.SIMILARITY, *own}
    made = [layer_table(table, "accuracy"), layer_table(table, "alpha"), metric_table(correlations, metrics=shown)]
    return [each for each in made if each]


def layer_table(table: pa.Table, column: str) -> TextTable | None:
    """Mean ± SEM over models of one column (accuracy in per cent), by layer and perturbation; None without data."""
    results = frame.ok(table)
    percent = column == "accuracy"
    conditions, rows, most = frame.conditions(results), [], 0
    for layer in frame.layers(results):
        means = [_layer_mean(results, column, layer, condition) for condition in conditions]
        most = max(most, *(mean.n for mean in means))
        rows.append([layer, *(_mean(mean, percent) for mean in means)])
    if not most:
        return None
    header = ["layer", *(labels.style(condition).name for condition in conditions)]
    unit = " [%]" if percent else ""
    note = f"Mean ± standard error over {most} models." if most > 1 else "One model: no standard error."
    name = labels.metric(column)
    title = f"{name.capitalize() if name.isascii() else name}{unit} by layer"
    return TextTable(title, header, rows, note=note)


def _layer_mean(results: pa.Table, column: str, layer: str, condition: str) -> frame.Mean:
    mean = frame.mean_over_models(frame.select(results, layer, condition), column)
    if mean.n or condition != frame.ORIGINAL or column not in ("accuracy", "loss"):
        return mean
    # An unperturbed layer leaves the model as it is: its accuracy is the baseline's.
    return frame.mean_over_models(frame.select(results, "", None), column)


def _mean(mean: frame.Mean, percent: bool) -> str:
    if not mean.n:
        return "–"
    scale, digits = (100, 2) if percent else (1, 3)
    error = f" ± {number(scale * mean.sem, digits)}" if mean.n > 1 else ""
    return number(scale * mean.mean, digits) + error


def metric_table(
    correlations: pa.Table, scope: str = "mean", condition: str = "all", metrics: Collection[str] | None = None
) -> TextTable | None:
    """rho, tau and RMSE of every metric, with n, confidence interval and p, in one scope; None without data."""
    found = [row for row in _rows(correlations, scope, condition) if metrics is None or row["metric"] in metrics]
    rows = [row for row in found if row["status"] in GOOD]
    if not rows:
        return None
    cells = [
        [
            row["metric"], f"{row['n']:,}", number(row["rho"]), _interval(row, "rho"), p_value(row["rho_p"]),
            number(row["tau"]), _interval(row, "tau"), p_value(row["tau_p"]), number(row["rmse"]),
        ]
        for row in rows
    ]  # fmt: skip
    where = {"mean": "mean over layers", "pooled": "all layers pooled"}.get(scope, scope)
    excluded = max(row["n_excluded"] for row in rows)
    note = "[ ]: 95 % bootstrap interval; p: permutations; RMSE of the least-squares line, in units of the target."
    if scope == "mean":
        note += " n counts the rows of all layers; each layer has its own rho, of which this is the mean."
    note += f" Rows that failed or have no value are left out, at most {excluded:,} a metric." if excluded else ""
    if max(row["n_units"] for row in rows) < MIN_UNITS:
        note += f" No intervals: they need {MIN_UNITS} models."
    note += _without(found)
    title = f"{rows[0]['target'].capitalize()} against each metric, {labels.condition(condition)}, {where}"
    header = ["metric", "n", "rho", "95 % CI", "p", "tau", "95 % CI", "p", "RMSE"]
    return TextTable(title, header, cells, note=note)


def grouping_table(correlations: pa.Table, metrics: Collection[str] | None = None) -> TextTable | None:
    """rho (mean over layers) of all perturbed rows together beside pooled and within each condition."""
    conditions = list(dict.fromkeys(correlations["condition"].to_pylist()))
    columns = {"together": {row["metric"]: row for row in _rows(correlations, "mean", "all")}}
    columns["pooled"] = {row["metric"]: row for row in _rows(correlations, "pooled", "all")}
    for name in conditions:
        if name != "all":
            columns[labels.short(name)] = {row["metric"]: row for row in _rows(correlations, "mean", name)}
    found = [name for name in columns["together"] if metrics is None or name in metrics]
    cells = [
        [name, *(number(each[name]["rho"] if name in each else None) for each in columns.values())] for name in found
    ]
    cells = [row for row in cells if set(row[1:]) != {"–"}]
    if not cells:
        return None
    note = (
        "Mean over layers, except pooled. A rho that is strong together and vanishes within each perturbation "
        "comes from the groups being apart."
    )
    return TextTable("rho with all perturbations together, and within each", ["metric", *columns], cells, note=note)


def _rows(correlations: pa.Table, scope: str, condition: str) -> list[dict[str, Any]]:
    found = {
        row["metric"]: row
        for row in correlations.to_pylist()
        if row["scope"] == scope and row["condition"] == condition and row["n"]
    }
    return [found[name] for name in labels.in_order(list(found))]


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, high = number(row[f"{name}_lo"], 2), number(row[f"{name}_hi"], 2)
    return "–" if "–" in (low, high) else f"[{low}, {high}]"


def _without(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which metrics have no correlation, and why."""
    why: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] not in GOOD:
            why.setdefault(row["status"].replace("_", " "), []).append(row["metric"])
    return "".join(f" Without one, {status}: {', '.join(names)}." for status, names in why.items())
