"""What the numbers say, in a few sentences. None is said that the results cannot bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raylab.report import labels, spectra
from raylab.report import target as targets
from raylab.report.by_layer import perturbed
from raylab.report.layerwise import listed, plural
from raylab.report.target import Target
from raylab.results import frame
from raylab.results.correlate import MIN_ROWS, USABLE
from raylab.results.text import number, p_value, perplexity

Row = Mapping[str, Any]
FEW = 4  # rows, of which a correlation says nothing: of four any order has a chance of one in 24
MOST = 5  # layers that are named for being robust or critical


def findings(table: pa.Table, correlations: pa.Table) -> list[str]:
    """The sentences, as plain text."""
    if spectra.alone(table):
        return spectra.findings(table)
    results, target = frame.ok(table), targets.of(table)
    if target is None:
        return []
    conditions = perturbed(results)
    if not frame.one_model(results):
        return [*_about_models(results, target), *_about_metrics(correlations), *_about_groups(correlations)]
    said = [*_about_model(results, target), *_about_layers(results, target, conditions)]
    if len(conditions) == 1:
        said += _within_and_across(correlations)
    else:
        said += [*_about_metrics(correlations), *_about_groups(correlations)]
    return said + _too_few(correlations)


def _about_models(results: pa.Table, target: Target) -> list[str]:
    """How well several models do, and what perturbing a layer of them leaves."""
    said = []
    whole = target.baseline(results)
    if np.isfinite(whole.mean):
        error = f" ± {number(whole.sem, target.digits)}" if whole.n > 1 else ""
        given = any(frame.texts(results, "origin"))  # its weights may be random ones: nobody has seen them trained
        models = f"{whole.n:,} {'model' if given else 'trained model'}"
        plural_s = "s reach" if whole.n > 1 else " reaches"
        what = f"{'an' if target.column == 'accuracy' else 'a'} {target.column}"
        value = f"{number(whole.mean, target.digits)}{error} {target.unit}"
        said.append(f"{models}{plural_s} {what} of {value}.")
    for condition in perturbed(results):
        means = {
            layer: frame.mean_over_models(frame.select(results, layer, condition), target.column)
            for layer in frame.layers(results)
        }
        said += _range({layer: target.scale * mean.mean for layer, mean in means.items() if mean.n}, condition, target)
    return said


def _range(left: Mapping[str, float], condition: str, target: Target, also: str = "") -> list[str]:
    """Between which layers lies what is left. also: what else is said of a loss."""
    if len(left) < 2:
        return []
    low, high = min(left, key=lambda layer: left[layer]), max(left, key=lambda layer: left[layer])
    digits = 1 if target.unit == "%" else 2
    between = (
        f"between {number(left[low], digits)} {target.unit} ({low}) and "
        f"{number(left[high], digits)} {target.unit} ({high})"
    )
    deed = _deed(condition)
    if target.column == "accuracy":
        return [f"With one layer {deed}, {between} is left."]
    return [f"With one layer {deed}, the {target.column} is {between}{also}."]


def _deed(condition: str) -> str:
    """What was done to a layer: "re-randomised", "under my_lab:noisy"."""
    style = labels.style(condition)
    return style.deed or (style.name if condition in labels.STYLES else f"under {style.name}")


# -- correlations of several models, or several perturbations ----------------------------------------------------------


def _rows(correlations: pa.Table, scope: str, condition: str = "all") -> dict[str, Row]:
    return {
        row["metric"]: row
        for row in correlations.to_pylist()
        if (row["scope"], row["condition"]) == (scope, condition) and row["status"] in USABLE and row["n"] > FEW
    }


def _strongest(rows: Mapping[str, Row]) -> str:
    return max(rows, key=lambda name: abs(rows[name]["rho"]), default="")


def _apart(rows: Mapping[str, Row]) -> tuple[list[str], list[str]]:
    """The paper's metrics that have an interval, and those of them whose interval is without 0."""
    known = [name for name in labels.PRIMARY if name in rows and np.isfinite(rows[name]["rho_lo"])]
    return known, [name for name in known if rows[name]["rho_lo"] * rows[name]["rho_hi"] > 0]


def _names(metrics: Sequence[str]) -> str:
    return f" ({', '.join(labels.metric(name) for name in metrics)})" if metrics else ""


def _name(metric: str) -> str:
    return "α" if metric == "alpha" else labels.metric(metric)


def _about_metrics(correlations: pa.Table) -> list[str]:
    rows = _rows(correlations, "mean")
    said = []
    for name in ("alpha", _strongest(rows) or "alpha"):
        if name in rows:
            row = rows.pop(name)
            strongest = "" if name == "alpha" else "The strongest correlation is that of "
            said.append(
                f"{strongest}{_name(name)}: Spearman ρ with {row['target']} is {number(row['rho'])} on average over "
                f"layers{_interval(row)}, permutation p {p_value(row['rho_p'])} (n = {row['n']:,})."
            )
    return said


def _interval(row: Row) -> str:
    if not np.isfinite(row["rho_lo"]):
        return ""
    return f", 95 % interval [{number(row['rho_lo'], 2)}, {number(row['rho_hi'], 2)}]"


def _about_groups(correlations: pa.Table) -> list[str]:
    """Whether the spectral metrics say anything, and whether the strongest correlation is one of groups only."""
    together = _rows(correlations, "mean")
    known, apart = _apart(together)
    said = []
    if known:
        said.append(
            f"Of the {len(known)} spectral metrics of the paper, {len(apart)} have an interval without "
            f"0{_names(apart)}."
        )
    strongest = _strongest(together)
    each = [name for name in dict.fromkeys(correlations["condition"].to_pylist()) if name != "all" and "+" not in name]
    within = [
        rows[strongest]["rho"] for rows in (_rows(correlations, "mean", name) for name in each) if strongest in rows
    ]
    if len(within) > 1:
        said.append(
            f"Within each perturbation alone the ρ of {labels.metric(strongest)} lies between "
            f"{number(min(within), 2)} and {number(max(within), 2)}: the rest comes from the groups being apart."
        )
    return said


# -- one model ---------------------------------------------------------------------------------------------------------


def _about_model(results: pa.Table, target: Target) -> list[str]:
    """Which model it is and how well it does."""
    whole, row = target.baseline(results).mean, frame.select(results, "", None)
    if not np.isfinite(whole):
        return []
    name = next(iter(frame.texts(results, "model")), "") or "The model"
    if target.column == "accuracy":
        said = f"{name} reaches an accuracy of {target.text(whole)}"
        top5 = 100 * frame.mean_over_models(row, "top5").mean
        said += f" (top-5 {number(top5, 2)} %)" if np.isfinite(top5) else ""
        return [f"{said}{_samples(row, 'images')}."]
    perplexity = frame.mean_over_models(row, "perplexity").mean
    said = f"{name} has a loss of {target.text(whole)}"
    if np.isfinite(perplexity):
        per = next((text for text in frame.texts(row, "normaliser") if text), "token")
        said += f", a perplexity of {number(perplexity, 2)} per {per}"
        return [f"{said}{_samples(row, 'tokens')}."]
    return [f"{said}{_samples(row, 'samples')}."]


def _samples(row: pa.Table, noun: str) -> str:
    count = frame.mean_over_models(row, "num_samples").mean
    return f", over {count:,.0f} {noun}" if np.isfinite(count) else ""


def _about_layers(results: pa.Table, target: Target, conditions: Sequence[str]) -> list[str]:
    """What each perturbation of each layer leaves, on average over draws: robust layers and critical ones."""
    whole = target.baseline(results).mean
    said = []
    for condition in conditions:
        found = frame.by_layer(results, target.column, condition)
        left = {layer: target.scale * float(values.mean()) for layer, values in found.items()}
        said += _range(left, condition, target, _perplexities(results, left, condition))
        if left and np.isfinite(whole) and not _near_chance(target, whole):
            draws = max(map(len, found.values()))
            said += _robust_and_critical(left, whole, target, condition if len(conditions) > 1 else None, draws)
    if conditions and _near_chance(target, whole):
        said.append("The model is too near to chance for its layers to be called robust or critical.")
    return said


def _near_chance(target: Target, whole: float) -> bool:
    return target.cost(whole, target.critical_limit(whole)) <= target.robust


def _perplexities(results: pa.Table, left: Mapping[str, float], condition: str) -> str:
    """Between which perplexities those layers lie that leave least and most of a language model."""
    if not left:
        return ""
    ends = (min(left, key=lambda layer: left[layer]), max(left, key=lambda layer: left[layer]))
    low, high = (frame.geometric_mean(frame.select(results, name, condition), "perplexity").mean for name in ends)
    return "" if np.isnan(low + high) else f", the perplexity between {perplexity(low)} and {perplexity(high)}"


def _robust_and_critical(
    left: Mapping[str, float], whole: float, target: Target, condition: str | None, draws: int
) -> list[str]:
    """The layers of either kind. condition: to be named, where there are several."""
    by_cost = sorted(left, key=lambda layer: target.cost(whole, left[layer]))
    robust = [layer for layer in by_cost if target.cost(whole, left[layer]) <= target.robust]
    critical = [layer for layer in reversed(by_cost) if target.is_critical(whole, left[layer])]
    limit = f"{target.robust:g} {target.difference}" + (" on average over draws" if draws > 1 else "")
    worse = (
        f"less than half of the accuracy is left, below {target.critical_limit(whole):.1f} %"
        if target.better > 0
        else f"the loss grows by more than {target.critical:g} nat, beyond {target.critical_limit(whole):.2f}"
    )
    of, deed = plural(len(left), "layer"), "" if condition is None else _deed(condition)
    when = f" when {deed}" if condition in labels.STYLES else f" {deed}" if deed else ""
    return [
        f"Robust{when}, at a cost of at most {limit}: {_which(robust, left, target)} of {of}.",
        f"Critical{when} ({worse}): {_which(critical, left, target)} of {of}.",
    ]


def _which(layers: Sequence[str], left: Mapping[str, float], target: Target) -> str:
    """How many, and the most extreme of them with what they leave."""
    if not layers:
        return "none"
    digits = 1 if target.unit == "%" else 2
    return f"{len(layers):,} ({listed([f'{name} {number(left[name], digits)}' for name in layers], MOST)})"


def _within_and_across(correlations: pa.Table) -> list[str]:
    """alpha and the strongest metric, among the draws of one layer and over all layers together."""
    scopes = {
        "within a layer": _rows(correlations, "mean"),
        "across layers": _rows(correlations, "pooled"),
    }
    strongest = {where: _strongest(rows) for where, rows in scopes.items()}
    said = []
    for name in dict.fromkeys(["alpha", *strongest.values()]):
        found = {where: rows[name] for where, rows in scopes.items() if name in rows}
        if not found:
            continue
        first = [where for where in scopes if strongest[where] == name]
        parts = [
            f"{where} {number(row['rho'])}{_interval(row)}, p {p_value(row['rho_p'])}" for where, row in found.items()
        ]
        row = next(iter(found.values()))
        role = f", the strongest of {len(scopes[first[0]]):,} metrics {' and '.join(first)}" if first else ""
        said.append(f"{_name(name)}{role}: Spearman ρ with {row['target']} is {'; '.join(parts)} (n = {row['n']:,}).")
    return [*said, *_without_zero(*scopes.values())]


def _without_zero(within: Mapping[str, Row], across: Mapping[str, Row]) -> list[str]:
    known, apart = _apart(within)
    others, far = _apart(across)
    if not (known and others):
        return []
    return [
        f"Of the {len(known)} spectral metrics of the paper, {len(apart)} have an interval without 0 among draws of "
        f"a single layer{_names(apart)}, and {len(far)} across layers{_names(far)}, where layers of different size and "
        "scale are compared: the one does not follow from the other."
    ]


def _too_few(correlations: pa.Table) -> list[str]:
    """Where there are fewer rows than a correlation needs to say anything."""
    rows = [row for row in correlations.to_pylist() if row["condition"] == "all" and row["n"]]
    most = {name: max((row["n"] for row in rows if row["scope"] == name), default=0) for name in ("layer", "pooled")}
    if 0 < most["pooled"] <= FEW:
        return [f"Too few perturbed rows for correlations with metrics: {most['pooled']}, more than {FEW} are needed."]
    if 0 < most["layer"] < MIN_ROWS:
        needed = f"at least {MIN_ROWS} are needed: draws={MIN_ROWS} or more"
        return [f"Too few rows of each layer for correlations within a layer: {most['layer']}, {needed}."]
    return []
