"""What is left after each layer is perturbed, and alpha of each layer: one tick a layer, or against depth for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.report import labels
from raylab.report.by_depth import BAND, alpha_axis, depth_axis, name_ticks, tick_names, upright
from raylab.report.layerwise import ROLES, elided, plural, roles_of
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.report.target import Target
from raylab.results import frame
from raylab.types import ORIGINAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

FEW_LAYERS = 12  # up to which each layer has its own tick
MANY = 300  # points of a panel beyond which they are drawn as pixels: an SVG of them would be megabytes
DECADE = 8  # values so many times apart are seen on a logarithmic axis
COSTLY = 10.0  # re-initialising a layer that the figure of several models shades costs more than so many points
NAMED = 3  # extreme layers of either kind whose names are written
DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))


def perturbed(results: pa.Table) -> list[str]:
    """The conditions under which layers are not as they were given."""
    return [name for name in frame.conditions(results) if name != ORIGINAL]


def spans_decades(values: NDArray[np.float64]) -> bool:
    """Whether values are better seen on a logarithmic axis: positive, and most of a decade or more apart."""
    if not len(values):
        return False
    low, high = np.quantile(values, [0.01, 0.99])
    return bool(values.min() > 0 and high / low >= DECADE)


def target_by_layer(results: pa.Table, target: Target) -> Picture | None:
    """What each perturbation of each layer leaves: robust layers and critical ones."""
    conditions = perturbed(results)
    if not (conditions and np.isfinite(target.values(results)).any()):
        return None
    deep = len(frame.layers(results)) > FEW_LAYERS
    return _target_by_depth(results, target, conditions) if deep else _target_by_tick(results, target, conditions)


def target_axis(ax: Axes, target: Target, values: NDArray[np.float64]) -> None:
    """The vertical axis of a target: 0 to 100 per cent; a loss as it is, on a logarithmic axis if it spans decades."""
    ax.set_ylabel(target.axis)
    values = values[np.isfinite(values)]
    if target.unit == "%":
        ax.set_ylim(-4, 104)
    elif len(values) and values.max() >= DECADE * values.min() > 0:  # a single broken draw would flatten all others
        ax.set_yscale("log")
        plain_log(ax.yaxis)
        ax.set_ylabel(f"{target.column} [{target.unit}, log scale]")


def plain_log(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis of any range."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if 0 < high < 1000 * low else (1,)  # beyond three decades there is room for powers of ten alone
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


# -- few layers --------------------------------------------------------------------------------------------------------


def _target_by_tick(results: pa.Table, target: Target, conditions: Sequence[str]) -> Picture:
    layers, whole = frame.layers(results), target.baseline(results).mean
    values = target.values(results)
    critical = _costly(results, target, layers, whole)
    width, height = _size(layers)

    def draw(ax: Axes) -> None:
        for at in critical:
            ax.axvspan(at - 0.5, at + 0.5, color=labels.CRITICAL, alpha=0.10, linewidth=0)
        if np.isfinite(whole):
            ax.axhline(whole, color=INK, linestyle=DASHED, linewidth=1)
        _ticks(ax, results, values, conditions, layers)
        name_ticks(ax, layers, width)
        target_axis(ax, target, values)

    keys = [Key(labels.style(name).name, labels.style(name).color) for name in conditions]
    keys += [Key("unperturbed", INK, "_")] if np.isfinite(whole) else []
    caption = f"{_points(results)} Dashed: the unperturbed model{'' if frame.one_model(results) else 's'}."
    if "reinit" in conditions and np.isfinite(whole) and target.better > 0:
        band = [layers[at] for at in critical]
        caption += f" Shaded: critical layers, which cost more than {COSTLY:.0f} points when re-initialised"
        caption += f" ({', '.join(band)})." if band else " (none)."
    panel = Panel(f"{target.column.capitalize()} by layer", draw, width=width, height=height)
    return Picture(f"{target.column}_by_layer", "Robust and critical layers", caption, [panel], keys)


def _size(layers: Sequence[str]) -> tuple[float, float]:
    """Inches of a panel with a tick a layer: names that stand upright take nothing from the points."""
    width, shown = max(4.6, 1.2 + 0.55 * len(layers)), tick_names(layers)
    return width, 3.1 + (0.07 * max(map(len, shown)) if upright(shown, width) else 0.0)


def _points(results: pa.Table) -> str:
    return f"Small points are {'draws' if frame.one_model(results) else 'models'}, large ones their mean."


def _costly(results: pa.Table, target: Target, layers: Sequence[str], whole: float) -> list[int]:
    left = [frame.mean_over_models(frame.select(results, name, "reinit"), target.column).mean for name in layers]
    return [at for at, value in enumerate(left) if target.unit == "%" and whole - target.scale * value > COSTLY]


def _ticks(
    ax: Axes, results: pa.Table, values: NDArray[np.float64], conditions: Sequence[str], layers: Sequence[str]
) -> None:
    rng = np.random.default_rng(0)
    condition, layer = frame.texts(results, "perturbation"), frame.texts(results, "layer")
    for place, name in enumerate(conditions):
        color = labels.style(name).color
        shift = 0.17 * (place - (len(conditions) - 1) / 2)
        for at, each in enumerate(layers):
            here = values[(condition == name) & (layer == each) & np.isfinite(values)]
            if not len(here):
                continue
            x = at + shift + rng.uniform(-0.06, 0.06, len(here))
            ax.scatter(x, here, s=6, color=color, alpha=0.3, linewidths=0, rasterized=len(values) > MANY)
            ax.scatter([at + shift], [here.mean()], s=34, color=color, edgecolors=INK, linewidths=0.8, zorder=3)
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.grid(visible=False, axis="x")


# -- many layers -------------------------------------------------------------------------------------------------------


def _target_by_depth(results: pa.Table, target: Target, conditions: Sequence[str]) -> Picture:
    layers, whole = frame.layers(results), target.baseline(results).mean
    roles, alone = roles_of(results), len(conditions) == 1
    values = target.values(results)

    def draw(ax: Axes) -> None:
        if np.isfinite(whole):
            ax.axhspan(target.robust_limit(whole), whole, color=INK, alpha=0.08, linewidth=0)
            ax.axhline(whole, color=INK, linestyle=DASHED, linewidth=1)
            ax.axhline(target.critical_limit(whole), color=INK, linestyle=DOTTED, linewidth=1)
        target_axis(ax, target, values)
        for name in conditions:
            _depths(ax, results, target.column, name, target.scale, roles if alone else None)
        depth_axis(ax, layers)
        _extremes(ax, results, target, conditions)

    keys = (
        _role_keys(roles) if alone else [Key(labels.style(name).name, labels.style(name).color) for name in conditions]
    )
    keys += [Key("unperturbed", INK, "_")] if np.isfinite(whole) else []
    deed = labels.style(conditions[0]).name if alone else "perturbed"
    models = "the unperturbed model" if frame.one_model(results) else "the unperturbed models"
    caption = f"One layer {deed} at a time. {_points(results)} Dashed: {models}."
    if np.isfinite(whole):
        worse = "less than half of it is left" if target.better > 0 else f"more than {target.critical:g} nat worse"
        caption += f" Shaded: a cost of at most {target.robust:g} {target.difference}; beyond the dotted line {worse}."
    note = f"{target.column} by depth, one layer {elided(deed, 40)}" if alone else ""  # else the legend says it
    panel = Panel(f"{target.column.capitalize()} by depth", draw, note, width=4.6, height=3.1)
    return Picture(f"{target.column}_by_layer", "Robust and critical layers", caption, [panel], keys)


def _role_keys(roles: Mapping[str, str]) -> list[Key]:
    return [Key(role, *look) for role, look in ROLES.items() if role in roles.values()]


def _depths(
    ax: Axes, results: pa.Table, column: str, condition: str, scale: float, roles: Mapping[str, str] | None
) -> None:
    """Points and means of one condition against depth: coloured by what a layer is for, or by the condition."""
    place = {name: at for at, name in enumerate(frame.layers(results))}
    found = frame.by_layer(results, column, condition)
    many = len(place) > 60
    for role, (color, marker) in ROLES.items() if roles else ((None, (labels.style(condition).color, "o")),):
        names = [name for name in found if roles is None or roles[name] == role]
        if not names:
            continue
        x = np.concatenate([np.full(len(found[name]), place[name]) for name in names])
        y = scale * np.concatenate([found[name] for name in names])
        ax.scatter(
            x,
            y,
            s=3 if many else 6,
            color=color,
            alpha=0.3,
            linewidths=0,
            rasterized=sum(map(len, found.values())) > MANY,
        )
        ax.plot(
            [place[name] for name in names], [scale * found[name].mean() for name in names], linestyle="",
            marker=marker, color=color, markersize=3 if many else 5, markeredgewidth=0 if many else 0.6,
            markeredgecolor=INK, zorder=3,
        )  # fmt: skip


def _extremes(ax: Axes, results: pa.Table, target: Target, conditions: Sequence[str]) -> None:
    """The names of the layers with the lowest and the highest mean, beyond their draws, where there is room."""
    layers, drawn = frame.layers(results), _drawn(results, target, conditions)
    order = sorted(drawn, key=lambda name: drawn[name].mean())
    taken: list[tuple[float, float]] = []
    for name, low in [*((name, True) for name in order[:NAMED]), *((name, False) for name in order[: -NAMED - 1 : -1])]:
        x = (layers.index(name) + 0.5) / len(layers)
        below = low and _height(ax, drawn[name].min()) > 0.09
        end = drawn[name].min() if below else drawn[name].max()
        y = _height(ax, end) + (-0.04 if below else 0.04)
        if any(abs(x - other) < 0.36 and abs(y - height) < 0.07 for other, height in taken):
            continue
        taken.append((x, y))
        ax.annotate(
            elided(name, 24), (layers.index(name), end), xytext=(0, -4 if below else 4), textcoords="offset points",
            ha="left" if x < 0.2 else "right" if x > 0.8 else "center", va="top" if below else "bottom", fontsize=7,
            color=INK, zorder=4,
        )  # fmt: skip


def _drawn(results: pa.Table, target: Target, conditions: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """What is left of each layer, of the perturbation that leaves the worst."""
    found: dict[str, NDArray[np.float64]] = {}
    for name in conditions:
        for layer, values in frame.by_layer(results, target.column, name).items():
            values = target.scale * values
            if layer not in found or target.better * (values.mean() - found[layer].mean()) < 0:
                found[layer] = values
    return found


def _height(ax: Axes, y: float) -> float:
    """Where on the vertical axis a value is, from 0 to 1."""
    return float(ax.transAxes.inverted().transform(ax.transData.transform((0, y)))[1])


# -- alpha -------------------------------------------------------------------------------------------------------------


def alpha_by_layer(results: pa.Table) -> Picture | None:
    """alpha of each layer, as it is and perturbed."""
    conditions, layers = frame.conditions(results), frame.layers(results)
    alpha = frame.floats(results, "alpha")
    if not (conditions and np.isfinite(alpha).any()):
        return None
    deep = len(layers) > FEW_LAYERS
    width, height = (4.6, 3.1) if deep else _size(layers)

    def draw(ax: Axes) -> None:
        ax.axhspan(*BAND, color=INK, alpha=0.06, linewidth=0)
        ax.set_yscale("log")
        if deep:
            for name in reversed(conditions):  # the unperturbed layers over the others
                _depths(ax, results, "alpha", name, 1.0, None)
            depth_axis(ax, layers)
        else:
            _ticks(ax, results, alpha, conditions, layers)
            name_ticks(ax, layers, width)
        alpha_axis(ax.yaxis)
        ax.set_ylabel("α (log scale)")

    keys = [Key(labels.style(name).name, labels.style(name).color) for name in conditions]
    caption = (
        "Exponent of the power law fitted to each layer's spectrum. Shaded: 2 to 6, the range that the literature "
        "expects of well-trained layers."
    )
    if deep:
        lost = int(np.sum(~np.isfinite(alpha) & (frame.texts(results, "layer") != "")))
        caption += f" {_points(results)}" + (f" Without a fit: {plural(lost, 'row')}." if lost else "")
    panel = Panel("α by depth" if deep else "α by layer", draw, width=width, height=height)
    return Picture("alpha_by_layer", "α of unperturbed and perturbed layers", caption, [panel], keys)
