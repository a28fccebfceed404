"""Pictures of spectra in one call: `raylab.plot.esd(table, layer="fc1").save("esd.png")`.

    import raylab

    table = raylab.analyze(model, ["standard", "marchenko_pastur", "esd"])
    raylab.plot.alpha_by_depth(table)  # a notebook shows it
    raylab.plot.esd(table, layer="fc1").save("fc1.png")  # .png, .svg, .pdf, or a folder
    figure = raylab.plot.compare(table, raylab.analyze(other)).figure()  # matplotlib's, to work on

A table is one of `raylab.analyze`, of `raylab.results.load`, or the folder of results itself. Every function gives a
`Picture` and raises UserError, in one line, where there is nothing to draw. matplotlib is loaded when one is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raylab.errors import UserError
from raylab.registry import suggest
from raylab.report import by_depth
from raylab.report import compare as _compare
from raylab.report import esd as _esd
from raylab.report.layerwise import Layers, models
from raylab.report.picture import Picture
from raylab.results import load

if TYPE_CHECKING:
    import pyarrow as pa

NO_EVALS = "There are no eigenvalues to draw: measure with the metric esd, raylab.analyze(model, ['standard', 'esd'])."
NO_ALPHA = "No layer has an alpha to draw: measure with the metric standard or power_law."


def esd(table: pa.Table | str | Path, layer: str, model: str | None = None) -> Picture:
    """The ESD of one layer: density with the fitted power law, bulk with the Marchenko-Pastur law, rank against size.

    The table needs the column `evals` (metric "esd"); the laws are drawn where they were fitted (metrics "standard",
    "marchenko_pastur"). model: which, where there are several.
    """
    layers = _one(table, model)
    if layer not in layers.names:
        raise UserError(f"There is no layer '{layer}' in {layers.model}.{suggest(layer, layers.names)}")
    return _drawn(_esd.esd(layers, layers.names.index(layer)), NO_EVALS)


def esd_by_layer(table: pa.Table | str | Path, model: str | None = None, most: int = _esd.MOST_PANELS) -> Picture:
    """The ESDs of a model's layers side by side, of at most so many, evenly chosen by depth."""
    return _drawn(_esd.esd_by_layer(_one(table, model), most), NO_EVALS)


def alpha_by_depth(table: pa.Table | str | Path) -> Picture:
    """alpha of every layer with its standard error against depth, a panel a model."""
    return _drawn(by_depth.alpha_by_depth(_models(table)), NO_ALPHA)


def alpha_histogram(table: pa.Table | str | Path) -> Picture:
    """How alpha is spread over the layers of one model, or of several."""
    return _drawn(by_depth.alpha_histogram(_models(table)), NO_ALPHA)


def metrics_by_depth(table: pa.Table | str | Path, metrics: Sequence[str] = by_depth.METRICS) -> Picture:
    """Any columns of numbers against depth, a panel each, a line a model."""
    nothing = f"None of these columns has a number: {', '.join(metrics)}."
    return _drawn(by_depth.metrics_by_depth(_models(table), metrics), nothing)


def compare(
    a: pa.Table | str | Path, b: pa.Table | str | Path | None = None, names: tuple[str, str] | None = None
) -> Picture:
    """alpha of two models layer by layer, and their difference by depth.

    a, b: a table each, or one table of two models. names: what to call them. Layers are matched by name; if no name is
    shared and there are as many, by order.
    """
    found = _models(a) if b is None else [_one(a, None), _one(b, None)]
    if len(found) != 2:
        raise UserError(f"To compare needs two models, and here {_are(len(found))}: give one table each.")
    if names or found[0].model == found[1].model:
        named = names or ("first", "second")
        found = [replace(each, model=name) for each, name in zip(found, named, strict=True)]
    one, other = found
    return _drawn(_compare.compare(one, other), "No layer with an alpha in one model belongs to one in the other.")


def _models(table: pa.Table | str | Path) -> list[Layers]:
    found = models(load(table) if isinstance(table, (str, Path)) else table)
    if not found:
        raise UserError("The table has no layer: give one of raylab.analyze, or a folder of results.")
    return found


def _one(table: pa.Table | str | Path, model: str | None) -> Layers:
    found = {each.model: each for each in _models(table)}
    if model is None and len(found) == 1:
        return next(iter(found.values()))
    if model is None:
        raise UserError(f"Which model? Say model=, one of {', '.join(found)}.")
    if model not in found:
        raise UserError(f"There is no model '{model}'.{suggest(model, list(found))}")
    return found[model]


def _drawn(picture: Picture | None, nothing: str) -> Picture:
    if picture is None:
        raise UserError(nothing)
    return picture


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"
