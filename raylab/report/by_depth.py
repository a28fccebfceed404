"""Metrics of layers against depth, and alpha over layers: one model, or several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raylab.report import labels
from raylab.report.layerwise import FAILED, ROLES, SKIPPED, Layers, elided, plural
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.results.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = (2.0, 6.0)  # the alpha that the literature expects of well-trained layers
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#999933", "#757b87")  # of models
CHARACTER = 0.085  # inches that one takes on an axis, with what keeps words apart
NAMED = 16  # layers up to which an axis has their names
ALPHA_TICKS = (1, 1.5, 2, 3, 4, 6, 10, 15, 20, 30, 50, 100, 200)
METRICS = (
    "log_norm", "alpha_hat", "stable_rank", "mp_softrank", "entropy", "num_spikes", "num_traps", "D",
)  # fmt: skip
UNITS = {"log_norm": "log₁₀ Σλ", "D": "D", "num_spikes": "spikes", "num_traps": "correlation traps"}


def alpha_by_depth(models: Sequence[Layers]) -> Picture | None:
    """alpha of every layer with its standard error, colour and marker by what a layer is for; a panel a model."""
    models = [each for each in models if each.ok.any() and np.isfinite(each.floats("alpha")).any()][: len(COLORS)]
    if not models:
        return None
    every = np.concatenate([each.floats("alpha")[each.ok] for each in models])
    limits = (min(1.5, 0.9 * every.min()), max(7.5, 1.25 * every.max()))
    alone = len(models) == 1
    panels = [
        Panel(
            f"{each.model}: α by depth",
            lambda ax, each=each: _alphas(ax, each, limits),
            note="" if alone else elided(each.model, 36),
            width=4.6 if alone else 3.6,
            height=3.1 if alone else 2.8,
        )
        for each in models
    ]
    used = {role for each in models for role in each.roles[each.ok]}
    keys = [Key(role, *look) for role, look in ROLES.items() if role in used]
    if any(each.count(FAILED) for each in models):
        keys.append(Key("no fit", INK, "X"))
    caption = (
        "Exponent of the power law fitted to each layer's spectrum; bars: standard error. Shaded: 2 to 6, the range "
        "that the literature expects of well-trained layers. Dashed: the mean. "
    )
    caption += " ".join(mean_alpha(each, alone) for each in models)
    return Picture("alpha_by_depth", "α by depth", caption, panels, keys, columns=2)


def mean_alpha(layers: Layers, alone: bool) -> str:
    """The mean of a model in a sentence, with what it leaves out."""
    left = [f"{layers.count(state):,} {state}" for state in (FAILED, SKIPPED) if layers.count(state)]
    out = f" ({' and '.join(left)} left out)" if left else ""
    what = "Mean α" if alone else f"{layers.model}: mean α"
    return f"{what} {number(layers.mean('alpha'), 2)} over {plural(int(layers.ok.sum()), 'layer')}{out}."


def _alphas(ax: Axes, layers: Layers, limits: tuple[float, float]) -> None:
    x, alpha, sigma = np.arange(len(layers.names)), layers.floats("alpha"), layers.floats("sigma")
    many = len(x) > 60
    ax.axhspan(*BAND, color=INK, alpha=0.06, linewidth=0)
    ax.axhline(layers.mean("alpha"), color=INK, linestyle=(0, (4, 3)), linewidth=1)
    ax.set_yscale("log")
    for role, (color, marker) in ROLES.items():
        here = layers.ok & (layers.roles == role)
        low = np.minimum(sigma[here], 0.999 * alpha[here])  # a bar cannot reach below 0 on a logarithmic axis
        ax.errorbar(
            x[here], alpha[here], yerr=[low, sigma[here]], linestyle="", color=color, marker=marker,
            markersize=2.6 if many else 4.5, elinewidth=0.5 if many else 0.9, markeredgewidth=0,
        )  # fmt: skip
    for at in x[layers.states == FAILED]:
        ax.plot(
            [at], [0.03], marker="X", color=INK, markersize=5, markeredgewidth=0, transform=ax.get_xaxis_transform()
        )
    ax.set_ylim(*limits)
    alpha_axis(ax.yaxis)
    ax.set_ylabel("α (log scale)")
    depth_axis(ax, layers.names)


def alpha_axis(axis: Any) -> None:
    """Plain numbers on a logarithmic axis of alpha."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, StrMethodFormatter

    axis.set_major_locator(FixedLocator(ALPHA_TICKS))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def depth_axis(ax: Axes, names: Sequence[str]) -> None:
    """The names of a few layers, the numbers of many."""
    from matplotlib.ticker import MaxNLocator

    ax.grid(visible=False, axis="x")
    room = max(0.6, 0.015 * len(names))
    ax.set_xlim(-room, len(names) - 1 + room)
    if len(names) <= NAMED:
        name_ticks(ax, names)
        return
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("layer, in the order of the model")


def name_ticks(ax: Axes, names: Sequence[str], width: float = 4.6) -> None:
    """The names of layers, upright where they would overlap in a panel of so many inches."""
    shown = tick_names(names)
    ax.set_xticks(range(len(names)), shown, rotation=90 if upright(shown, width) else 0)


def tick_names(names: Sequence[str]) -> list[str]:
    """Names of layers for an axis: without the dotted parts that all of them begin with, and not too long."""
    parts = [name.split(".") for name in names]
    shared = 0
    while len(names) > 1 and all(len(each) > shared + 1 and each[shared] == parts[0][shared] for each in parts):
        shared += 1
    return [elided(("…" if shared else "") + ".".join(each[shared:]), 24) for each in parts]


def upright(shown: Sequence[str], width: float) -> bool:
    """Whether names would overlap side by side in a panel of so many inches."""
    return max(map(len, shown), default=0) * CHARACTER * len(shown) > width - 0.6


# -- distribution over layers ------------------------------------------------------------------------------------------


def alpha_histogram(models: Sequence[Layers]) -> Picture | None:
    """How alpha is spread over layers: a filled histogram of one model, step lines of several."""
    found = {each.model: each.floats("alpha")[each.ok] for each in models[: len(COLORS)]}
    found = {name: alpha[np.isfinite(alpha)] for name, alpha in found.items() if np.isfinite(alpha).any()}
    if not found:
        return None
    edges = _bins(np.concatenate(list(found.values())))
    alone = len(found) == 1

    def draw(ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        ax.axvspan(*BAND, color=INK, alpha=0.06, linewidth=0)
        for color, alpha in zip(COLORS, found.values(), strict=False):
            counts = np.histogram(alpha, edges)[0]
            if alone:
                ax.stairs(counts, edges, fill=True, color=color, alpha=0.75, linewidth=0)
            else:
                ax.stairs(100 * counts / len(alpha), edges, color=color, linewidth=1.8)
            ax.axvline(alpha.mean(), color=INK if alone else color, linestyle=(0, (4, 3)), linewidth=1.2)
        ax.set_xlim(min(edges[0], BAND[0] - 0.5), max(edges[-1], BAND[1] + 0.5))
        ax.set_xlabel("α")
        ax.set_ylabel("layers" if alone else "share of layers [%]")
        if alone:
            ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))

    keys = [] if alone else [Key(elided(name, 40), color, "_") for color, name in zip(COLORS, found, strict=False)]
    beyond = sum(int(np.count_nonzero(alpha > edges[-1])) for alpha in found.values())
    caption = "Shaded: 2 to 6. Dashed: the mean."
    caption += f" Beyond the right end: {plural(beyond, 'layer')}." if beyond else ""
    caption += f" The first {len(COLORS)} of {len(models)} models." if len(models) > len(COLORS) else ""
    panel = Panel("α over layers", draw, width=4.6, height=3.1)
    return Picture("alpha_histogram", "α over layers", caption, [panel], keys)


def _bins(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round steps, about twenty where most of alpha lies."""
    low, high = float(alpha.min()), min(float(alpha.max()), max(8.0, 1.5 * float(np.quantile(alpha, 0.95))))
    step = next((step for step in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0) if (high - low) / step <= 24), 10.0)
    return step * np.arange(np.floor(low / step), np.ceil(high / step + 1e-9) + 1)


# -- other metrics -----------------------------------------------------------------------------------------------------


def metrics_by_depth(models: Sequence[Layers], metrics: Sequence[str] = METRICS) -> Picture | None:
    """A panel a metric, a line a model, the layers of a single one coloured by what they are for.

    Layers without a value are gaps.
    """
    models = models[: len(COLORS)]
    shown = [name for name in metrics if any(np.isfinite(each.floats(name)).any() for each in models)]
    if not shown:
        return None
    panels = [Panel(label(name), lambda ax, name=name: _lines(ax, models, name), note=label(name)) for name in shown]
    pairs = zip(COLORS, models, strict=False)
    keys = [Key(elided(each.model, 40), color, "_") for color, each in pairs] if len(models) > 1 else _roles(models[0])
    caption = "Each metric against depth, in the order of the model."
    return Picture("metrics_by_depth", "Other metrics by depth", caption, panels, keys)


def _roles(layers: Layers) -> list[Key]:
    return [Key(role, *look) for role, look in ROLES.items() if role in layers.roles[layers.ok]]


def label(metric: str) -> str:
    """A metric to read, where a layer is meant."""
    return UNITS.get(metric) or labels.metric(metric)


def _lines(ax: Axes, models: Sequence[Layers], metric: str) -> None:
    longest = max((each.names for each in models), key=len)
    if len(models) == 1:
        _dots(ax, models[0], models[0].floats(metric))
    else:
        for color, each in zip(COLORS, models, strict=False):
            size = 1.5 if len(longest) > 60 else 3
            values = each.floats(metric)
            ax.plot(values, color=color, linewidth=1, marker="o", markersize=size, markeredgewidth=0)
    values = np.concatenate([each.floats(metric) for each in models])
    values = values[np.isfinite(values)]
    if values.min() > 0 and values.max() > 30 * values.min():
        ax.set_yscale("log")
    alike = all(each.names == longest for each in models)
    depth_axis(ax, longest if alike and len(longest) <= 8 else [""] * max(len(longest), NAMED + 1))
    ax.set_xlim(-0.6, len(longest) - 0.4)
    ax.set_xlabel("layer" if len(longest) > 8 or not alike else "")


def _dots(ax: Axes, layers: Layers, values: NDArray[np.float64]) -> None:
    ax.plot(values, color=INK, linewidth=0.5, alpha=0.25)
    x, size = np.arange(len(values)), 2.6 if len(values) > 60 else 4
    for role, (color, marker) in ROLES.items():
        here = layers.roles == role
        ax.plot(x[here], values[here], linestyle="", color=color, marker=marker, markersize=size, markeredgewidth=0)
