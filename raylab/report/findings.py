"""What the numbers say, in a few sentences. None is said that the results cannot bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from raylab.report import labels, related
from raylab.report import target as targets
from raylab.report.by_layer import perturbed
from raylab.report.layerwise import listed, plural
from raylab.report.target import Target
from raylab.results import frame
from raylab.results.text import number, perplexity, with_error

MOST = 5  # layers that are named for being robust or critical


def findings(table: pa.Table, correlations: pa.Table) -> list[str]:
    """The sentences, as plain text."""
    results, target = frame.ok(table), targets.of(table)
    if target is None:
        return []
    conditions = perturbed(results)
    if not frame.one_model(results):
        return [
            *_about_models(results, target),
            *related.about_metrics(correlations),
            *related.about_groups(correlations),
        ]
    said = [*_about_model(results, target), *_about_layers(results, target, conditions)]
    if len(conditions) == 1:
        said += related.within_and_across(correlations)
    else:
        said += [*related.about_metrics(correlations), *related.about_groups(correlations)]
    return said + related.too_few(correlations)


def _about_models(results: pa.Table, target: Target) -> list[str]:
    """How well several models do, and what perturbing a layer of them leaves."""
    said = []
    whole = target.baseline(results)
    if np.isfinite(whole.mean):
        given = any(frame.texts(results, "origin"))  # its weights may be random ones: nobody has seen them trained
        models = f"{whole.n:,} {'model' if given else 'trained model'}"
        plural_s = "s reach" if whole.n > 1 else " reaches"
        what = f"{'an' if target.column == 'accuracy' else 'a'} {target.column}"
        value = f"{with_error(whole.mean, whole.sem, target.digits)} {target.unit}"
        said.append(f"{models}{plural_s} {what} of {value}.")
    for condition in perturbed(results):
        means = {
            layer: frame.mean_over_models(frame.select(results, layer, condition), target.column)
            for layer in frame.layers(results)
        }
        said += _range({layer: target.scale * mean.mean for layer, mean in means.items() if mean.n}, condition, target)
    return said


def _range(left: Mapping[str, float], condition: str, target: Target, also: str = "") -> list[str]:
    """Between which layers lies what is left, where that can be told apart. also: what else is said of a loss."""
    if len(left) < 2:
        return []
    low, high = min(left, key=lambda layer: left[layer]), max(left, key=lambda layer: left[layer])
    digits = 1 if target.unit == "%" else 2
    least, most = (f"{number(left[name], digits)} {target.unit}" for name in (low, high))
    same = least == most
    what = least if same else f"between {least} ({low}) and {most} ({high})"
    whichever = " whichever it is" if same else ""
    if target.column == "accuracy":
        return [f"With one layer {_deed(condition)}, {what} is left{whichever}."]
    return [f"With one layer {_deed(condition)}, the {target.column} is {what}{whichever}{also}."]


def _deed(condition: str) -> str:
    """What was done to a layer: "re-randomised", "under my_lab:noisy"."""
    style = labels.style(condition)
    return style.deed or (style.name if condition in labels.STYLES else f"under {style.name}")


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
    if np.isnan(low + high):
        return ""
    least, most = perplexity(low), perplexity(high)
    return f", the perplexity {least}" if least == most else f", the perplexity between {least} and {most}"


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
