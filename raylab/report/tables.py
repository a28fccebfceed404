"""The plan and the results as tables. Each is a TextTable: print it with rich, or take its `markdown()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raylab.report import labels
from raylab.report import target as targets
from raylab.results import frame, schema
from raylab.results.correlate import MIN_UNITS, USABLE
from raylab.results.differences import EVALUATED
from raylab.results.text import TextTable, number, p_value, perplexity, with_error
from raylab.types import Trial

SHOWN_LAYERS = 24  # on the terminal; of a plan of more, the first half and their number
SKIPPED_NAMES = 3  # layers named for each reason why some are left out
UNITS = {"model": "models", "layer": "layers", "row": "draws"}  # that a bootstrap resamples


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
    """What a person wants to see at the end of a run: accuracy (or loss) and alpha by layer, and the correlations.

    As many layers as a terminal bears.
    """
    measured = schema.metric_columns(table.schema)
    own = [name for name in measured if schema.group(table.schema.field(name)) == "own"]
    shown = {*labels.PRIMARY, *labels.SIMILARITY, *own}
    made = [layer_table(table, column, SHOWN_LAYERS) for column in main_columns(table)]
    made.append(metric_table(correlations, metrics=shown))
    if frame.one_model(frame.ok(table)):
        made.append(metric_table(correlations, "pooled", metrics=shown))
    return [each for each in made if each]


def main_columns(table: pa.Table) -> list[str]:
    """The columns whose tables by layer come first: the target's, and alpha."""
    target = targets.of(table)
    held = [] if target is None else ["loss", "perplexity"] if target is targets.LOSS else [target.column]
    return [*held, "alpha"]


def other_columns(table: pa.Table) -> list[str]:
    """Other columns of a single model's evaluation, which come last. An accuracy of tokens is one."""
    if not frame.one_model(frame.ok(table)):
        return []
    return [name for name in ("top5", "loss", "accuracy") if name not in main_columns(table)]


def layer_table(table: pa.Table, column: str, most: int | None = None) -> TextTable | None:
    """Mean ± SEM of one column by layer and perturbation, over models, or over the draws of a single one.

    `most`: rows; of more layers those with the lowest and the highest values. None without data. Of perplexities, which
    are huge where a model is broken, the mean is geometric.
    """
    results = frame.ok(table)
    conditions, one = frame.conditions(results), frame.one_model(results)
    found = {
        layer: [_layer_mean(results, column, layer, condition, one) for condition in conditions]
        for layer in frame.layers(results)
    }
    counts = [mean.n for each in found.values() for mean in each]
    if not any(counts):
        return None
    shown = _extreme(found, conditions, most)
    rows = [[layer, *(_mean(mean, column) for mean in found[layer])] for layer in shown]
    header = ["layer", *(labels.style(condition).name for condition in conditions)]
    note = _note(column, max(counts), one) + _left_out(len(found), len(shown))
    return TextTable(_title(table, column), header, rows, note=note)


def _title(table: pa.Table, column: str) -> str:
    tokens = column == "accuracy" and targets.of(table) is targets.LOSS
    name = "accuracy of tokens" if tokens else "top-5 accuracy" if column == "top5" else labels.metric(column)
    unit = {"accuracy": " [%]", "top5": " [%]", "loss": " [nats]"}.get(column, "")
    return f"{name[0].upper() + name[1:] if name.isascii() else name}{unit} by layer"


def _note(column: str, most: int, one: bool) -> str:
    over = f"{most} draws of one model" if one else f"{most} models"
    if column == "perplexity":
        return f"Geometric mean over {over}." if most > 1 else ""
    if most > 1:
        return f"Mean ± standard error over {over}."
    return f"One model{' and one draw' if one else ''}: no standard error."


def _extreme(found: Mapping[str, list[frame.Mean]], conditions: Sequence[str], most: int | None) -> list[str]:
    """All layers, or the lowest and the highest by their mean over perturbations, in the order of the model."""
    layers = list(found)
    if most is None or len(layers) <= most:
        return layers
    places = [at for at, name in enumerate(conditions) if name != frame.ORIGINAL] or [0]
    values = {layer: [found[layer][at].mean for at in places if found[layer][at].n] for layer in layers}
    order = sorted(
        (layer for layer in layers if values[layer]), key=lambda layer: sum(values[layer]) / len(values[layer])
    )
    kept = {*order[: most // 2], *order[max(most // 2, len(order) - most // 2) :]}
    return [layer for layer in layers if layer in kept]


def _left_out(layers: int, shown: int) -> str:
    return f" The lowest and the highest of {layers:,} layers; all of them: see the report." if shown < layers else ""


def _layer_mean(results: pa.Table, column: str, layer: str, condition: str, one: bool) -> frame.Mean:
    over = frame.mean_over_draws if one else frame.mean_over_models
    mean_of = frame.geometric_mean if column == "perplexity" else over
    mean = mean_of(frame.select(results, layer, condition), column)
    if mean.n or condition != frame.ORIGINAL or column not in EVALUATED:
        return mean
    # An unperturbed layer leaves the model as it is: its accuracy is the baseline's.
    return mean_of(frame.select(results, "", None), column)


def _mean(mean: frame.Mean, column: str) -> str:
    if not mean.n:
        return "–"
    if column == "perplexity":
        return perplexity(mean.mean)
    scale, digits = (100, 2) if column in ("accuracy", "top5") else (1, 3)
    return with_error(scale * mean.mean, scale * mean.sem, digits)


def metric_table(
    correlations: pa.Table, scope: str = "mean", condition: str = "all", metrics: Collection[str] | None = None
) -> TextTable | None:
    """rho, tau and RMSE of every metric, with n, confidence interval and p, in one scope; None without data."""
    found = [row for row in _rows(correlations, scope, condition) if metrics is None or row["metric"] in metrics]
    rows = [row for row in found if row["status"] in USABLE]
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
        note += " n counts the rows of all layers that have a rho of their own, of which this is the mean."
        part = [row["metric"] for row in rows if row["status"] == "partial"]
        note += f" Over some layers only: {', '.join(part)}." if part else ""
    note += f" Rows that failed or have no value are left out, at most {excluded:,} a metric." if excluded else ""
    unit = rows[0]["unit"]
    if max(row["n_units"] for row in rows) < MIN_UNITS:
        note += f" No intervals: they need {MIN_UNITS} {UNITS[unit]}."
    elif scope == "pooled" and unit == "layer":
        note += " Intervals resample whole layers, and p permutes them: draws of one layer are alike."
    note += _without(found)
    title = f"{rows[0]['target'].capitalize()} against each metric, {labels.condition(condition)}, {where}"
    header = ["metric", "n", "rho", "rho 95 % CI", "rho p", "tau", "tau 95 % CI", "tau p", "RMSE"]
    return TextTable(title, header, cells, note=note)


def grouping_table(correlations: pa.Table, metrics: Collection[str] | None = None) -> TextTable | None:
    """rho (mean over layers) of all perturbed rows together beside pooled and within each condition."""
    conditions = list(dict.fromkeys(correlations["condition"].to_pylist()))
    alone = conditions == ["all"]  # a single perturbation: there are no groups to be apart, but layers
    first, second = ("within a layer", "across layers") if alone else ("together", "pooled")
    columns = {first: {row["metric"]: row for row in _rows(correlations, "mean", "all")}}
    columns[second] = {row["metric"]: row for row in _rows(correlations, "pooled", "all")}
    for name in conditions:
        if name != "all":
            columns[labels.short(name)] = {row["metric"]: row for row in _rows(correlations, "mean", name)}
    found = [name for name in columns[first] if metrics is None or name in metrics]
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
    title = "rho with all perturbations together, and within each"
    if alone:
        title = "rho within a layer, and across layers"
        note = "Within: among the draws of one layer, mean over layers. Across: all perturbed rows together."
    return TextTable(title, ["metric", *columns], cells, note=note)


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
        if row["status"] not in USABLE:
            why.setdefault(row["status"].replace("_", " "), []).append(row["metric"])
    return "".join(f" Without one, {status}: {', '.join(names)}." for status, names in why.items())
