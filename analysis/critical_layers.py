"""Which layers are robust and which critical, by depth and width, over results of several architectures.

    python analysis/critical_layers.py results/fcn_depth_width/* --output analysis/fcn_depth_width
    python analysis/critical_layers.py results/cifar_trained/* --output analysis/cifar_trained

After Zhang, Bengio and Singer, "Are all layers created equal?" (JMLR 2022): a trained layer gets its own theta_0 back
(re-initialised) or a fresh draw (re-randomised). It is robust if that costs at most 10 points of accuracy, critical if
less than half of the accuracy is left. Writes a table of layers, one of architectures and a figure; reads rows only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raylab.errors import UserError
from raylab.report import labels, publish, target
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.results import frame, load
from raylab.results.text import TextTable, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONDITIONS = ("reinit", "rerandomize")
FEW = 6  # architectures up to which each has a colour of its own
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
# Of what is deeper, darker: readable without colour, too.
SEQUENCE = ("#9ecae1", "#4292c6", "#2171b5", "#08306b", "#000000")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a perturbation of a layer costs the models of an architecture, in percent and points of accuracy."""

    model: str
    depth: float
    width: float
    layer: str
    place: int  # among the layers that were perturbed, from 0
    relative_depth: float  # 0: the first layer, 1: the last
    perturbation: str
    models: int
    baseline: float
    left: float
    sem: float  # of `left`, over models
    cost: float
    verdict: str


def main(folders: Sequence[str], output: Path) -> Iterator[Path]:
    """Write the tables and the figure."""
    found = {folder: costs_of(frame.ok(load(folder)), folder) for folder in folders}
    costs = [cost for each in found.values() for cost in each]
    _require_distinct(found)
    costs.sort(key=lambda cost: (cost.width, cost.depth, cost.model, cost.place))
    numbers = pa.Table.from_pylist([asdict(cost) for cost in costs])
    yield from publish.table(output, "critical_layers", table_of_layers(costs), numbers)
    yield from publish.table(output, "critical_by_architecture", table_of_models(costs), summary(costs))
    yield from publish.figure(output, picture_of(costs))


def _require_distinct(found: Mapping[str, Sequence[Cost]]) -> None:
    """Models are told apart by their names: those of two recipes would be taken for one."""
    first: dict[str, str] = {}
    for folder, costs in found.items():
        for cost in costs:
            if first.setdefault(cost.model, folder) != folder:
                raise UserError(
                    f"{cost.model} is in {first[cost.model]} and in {folder}: give the folders of one recipe at a time."
                )


def costs_of(rows: pa.Table, folder: str) -> list[Cost]:
    """Of the layers of every model in a folder of results. Raises UserError where nothing of it is re-initialised."""
    if "reinit" not in frame.conditions(rows) or target.of(rows) is not target.ACCURACY:
        raise UserError(f"{folder} has no accuracy of re-initialised layers: run an experiment that trains its models.")
    names = frame.texts(rows, "model")
    return [cost for name in dict.fromkeys(names) for cost in _of_model(name, rows.filter(pa.array(names == name)))]


def _of_model(model: str, rows: pa.Table) -> Iterator[Cost]:
    accuracy, layers = target.ACCURACY, frame.layers(rows)
    whole = accuracy.baseline(rows).mean
    for place, layer in enumerate(layers):
        for condition in CONDITIONS:
            mean = frame.mean_over_models(frame.select(rows, layer, condition), "accuracy")
            left = accuracy.scale * mean.mean
            if not mean.n:
                continue
            yield Cost(
                model=model,
                depth=_first(rows, "depth"),
                width=_first(rows, "width"),
                layer=layer,
                place=place,
                relative_depth=place / max(1, len(layers) - 1),
                perturbation=condition,
                models=mean.n,
                baseline=whole,
                left=left,
                sem=accuracy.scale * mean.sem,
                cost=accuracy.cost(whole, left),
                verdict=verdict(whole, left),
            )


def _first(rows: pa.Table, column: str) -> float:
    """What all rows of a model say; NaN for results that are older than the column."""
    values = frame.floats(rows, column)
    return float(values[np.isfinite(values)][0]) if np.isfinite(values).any() else float("nan")


def verdict(whole: float, left: float) -> str:
    """Robust, critical, or between the two."""
    accuracy = target.ACCURACY
    if accuracy.is_critical(whole, left):
        return "critical"
    return "robust" if accuracy.cost(whole, left) <= accuracy.robust else "between"


def table_of_layers(costs: Sequence[Cost]) -> TextTable:
    """A line a layer: what is left after either perturbation."""
    lines, places = [], dict.fromkeys((cost.model, cost.layer) for cost in costs)
    for model, layer in places:
        found = {cost.perturbation: cost for cost in costs if (cost.model, cost.layer) == (model, layer)}
        any_of = next(iter(found.values()))
        cells = [cell for name in CONDITIONS for cell in _cells(found.get(name))]
        lines.append((model, layer, number(any_of.relative_depth, 2), number(any_of.baseline, 2), *cells))
    header = ("model", "layer", "relative depth", "baseline", "re-initialised", "", "re-randomised", "")
    return TextTable("Accuracy [%] left by each layer", header, lines, texts=(0, 1, 5, 7), note=_thresholds())


def _cells(cost: Cost | None) -> tuple[str, str]:
    if cost is None:
        return "", ""
    spread = f" ± {number(cost.sem, 2)}" if np.isfinite(cost.sem) else ""
    return f"{number(cost.left, 2)}{spread}", cost.verdict


def table_of_models(costs: Sequence[Cost]) -> TextTable:
    """A line an architecture: how many of its layers are robust or critical, and which are critical."""
    lines = []
    for each in summary(costs).to_pylist():
        counts = [
            f"{each[f'{name}_{what}']} / {each['layers']}" for name in CONDITIONS for what in ("robust", "critical")
        ]
        shape = ["" if np.isnan(each[key]) else f"{each[key]:.0f}" for key in ("depth", "width")]
        accuracy = number(each["baseline"], 2)
        lines.append((each["model"], *shape, str(each["models"]), accuracy, *counts, each["critical_layers"] or "none"))
    header = ("model", "depth", "width", "models", "accuracy [%]")
    header += ("robust to reinit", "critical", "robust to rerandomize", "critical", "critical when re-initialised")
    return TextTable("Robust and critical layers by architecture", header, lines, texts=(0, 9), note=_thresholds())


def summary(costs: Sequence[Cost]) -> pa.Table:
    """The numbers of `table_of_models`."""
    lines = []
    for model in dict.fromkeys(cost.model for cost in costs):
        mine = [cost for cost in costs if cost.model == model]
        counts = {
            f"{name}_{what}": sum(cost.verdict == what for cost in mine if cost.perturbation == name)
            for name in CONDITIONS
            for what in ("robust", "critical")
        }
        critical = [cost.layer for cost in mine if (cost.perturbation, cost.verdict) == ("reinit", "critical")]
        first = mine[0]
        lines.append(
            {"model": model, "depth": first.depth, "width": first.width, "models": first.models}
            | {"baseline": first.baseline, "layers": len({cost.layer for cost in mine})}
            | counts
            | {"critical_layers": ", ".join(critical)}
        )
    return pa.Table.from_pylist(lines)


def _thresholds() -> str:
    accuracy = target.ACCURACY
    return (
        f"Robust: the perturbation costs at most {accuracy.robust:.0f} points. Critical: less than "
        f"{100 * accuracy.critical:.0f} % of the accuracy is left. Relative depth: 0 is the first layer, 1 the last. "
        "±: standard error over models."
    )


def picture_of(costs: Sequence[Cost]) -> Picture:
    """What a layer costs by its relative depth, a line a model; where there are many, a panel a width."""
    models = list(dict.fromkeys(cost.model for cost in costs))
    many = len(models) > FEW
    widths = list(dict.fromkeys(cost.width for cost in costs)) if many else [None]
    panels = [
        _panel([cost for cost in costs if width in (None, cost.width)], condition, width, _colors(costs))
        for condition in CONDITIONS
        for width in widths
        if any(cost.perturbation == condition for cost in costs)
    ]
    depths = {cost.model: f"{cost.depth:.0f}" for cost in costs}
    colors = _colors(costs)
    named = {f"depth {depths[model]}" if many else model: colors[model] for model in models}
    keys = [Key(text, color) for text, color in sorted(named.items(), key=lambda item: len(item[0]) if many else 0)]
    caption = "Points are means over models, bars their standard errors. Grey: what a robust layer may cost."
    return Picture(
        "critical_layers",
        "What a layer's own initial weights cost, by depth",
        caption,
        panels,
        keys,
        len(widths) if many else 2,
    )


def _colors(costs: Sequence[Cost]) -> dict[str, str]:
    """Of each model; of many by their depth."""
    models = {cost.model: cost.depth for cost in costs}
    if len(models) <= FEW:
        return dict(zip(models, COLORS, strict=False))
    depths = sorted(set(models.values()))
    return {model: SEQUENCE[min(depths.index(depth), len(SEQUENCE) - 1)] for model, depth in models.items()}


def _panel(costs: Sequence[Cost], condition: str, width: float | None, colors: dict[str, str]) -> Panel:
    style = labels.style(condition)

    def draw(ax: Axes) -> None:
        ax.axhspan(-5, target.ACCURACY.robust, color=INK, alpha=0.06, linewidth=0)
        for model, color in colors.items():
            mine = [cost for cost in costs if (cost.model, cost.perturbation) == (model, condition)]
            at, cost = [each.relative_depth for each in mine], [each.cost for each in mine]
            error = np.nan_to_num([each.sem for each in mine])
            ax.errorbar(at, cost, error, color=color, marker="o", markersize=3.5, linewidth=1.2, elinewidth=0.8)
        ax.set_ylim(-5, 100)
        ax.set_xlim(-0.04, 1.04)
        ax.set_xlabel("relative depth of the layer")
        ax.set_ylabel(f"cost, {style.name} [points]")

    return Panel(style.name, draw, note=f"{style.name}, width {width:.0f}" if width is not None else style.name)


if __name__ == "__main__":
    publish.script(main, __doc__, several=True)
