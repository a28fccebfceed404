"""Two models layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raylab.report.by_depth import BAND, alpha_axis, depth_axis
from raylab.report.layerwise import ROLES, Layers, elided, plural
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.results.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 4  # comparisons of one report: the first model against those that follow


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which layer of the one model belongs to which of the other, by their places."""

    a: NDArray[np.intp]
    b: NDArray[np.intp]
    by_name: bool  # else by order


def match(a: Layers, b: Layers) -> Pairs | None:
    """Layers of the same name; where no name is shared, those of the same place if there are as many.

    None where nothing matches.
    """
    places = {name: at for at, name in enumerate(b.names)}
    shared = [(at, places[name]) for at, name in enumerate(a.names) if name in places]
    by_name = bool(shared)
    if not by_name and len(a.names) == len(b.names):
        shared = [(at, at) for at in range(len(a.names))]
    if not shared:
        return None
    one, other = np.array(shared, dtype=np.intp).T
    return Pairs(one, other, by_name)


def compare(a: Layers, b: Layers, name: str = "compare") -> Picture | None:
    """alpha of one model against that of another, layer by layer, and the difference by depth.

    None where no layer of the one that has a fit belongs to one of the other that has.
    """
    pairs = match(a, b)
    if pairs is None:
        return None
    both = a.ok[pairs.a] & b.ok[pairs.b]
    one, other = a.floats("alpha")[pairs.a], b.floats("alpha")[pairs.b]
    both &= np.isfinite(one) & np.isfinite(other)
    if not both.any():
        return None
    found = Pairs(pairs.a[both], pairs.b[both], pairs.by_name)
    x, y, roles = one[both], other[both], a.roles[found.a]
    short_a, short_b = elided(a.model, 24), elided(b.model, 24)

    def against(ax: Axes) -> None:
        _against(ax, x, y, roles)
        ax.set_xlabel(f"α of {short_a}")
        ax.set_ylabel(f"α of {short_b}")

    def difference(ax: Axes) -> None:
        _difference(ax, found.a, y - x, roles, a.names)
        ax.set_ylabel("difference of α")

    panels = [
        Panel(f"α of {a.model} and of {b.model}", against, width=3.6, height=3.1),
        Panel(f"α of {b.model} less that of {a.model}", difference, f"{short_b} − {short_a}", 3.6, 3.1),
    ]
    keys = [Key(role, *look) for role, look in ROLES.items() if role in roles]
    title = f"{elided(a.model, 40)} and {elided(b.model, 40)}: mean α {number(x.mean(), 2)} and {number(y.mean(), 2)}"
    return Picture(name, title, _caption(a, b, pairs, y - x), panels, keys, columns=2)


def _against(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], roles: NDArray[np.object_]) -> None:
    low, high = 0.92 * min(x.min(), y.min()), 1.08 * max(x.max(), y.max())
    ax.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.axvspan(*BAND, color=INK, alpha=0.05, linewidth=0)
    ax.axhspan(*BAND, color=INK, alpha=0.05, linewidth=0)
    for role, (color, marker) in ROLES.items():
        here = roles == role
        size = 9 if len(x) > 60 else 22
        ax.scatter(x[here], y[here], s=size, color=color, marker=marker, alpha=0.8, linewidths=0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    alpha_axis(ax.xaxis)
    alpha_axis(ax.yaxis)


def _difference(
    ax: Axes, places: NDArray[np.intp], change: NDArray[np.float64], roles: NDArray[np.object_], names: Sequence[str]
) -> None:
    ax.axhline(0, color=INK, linewidth=1)
    for role, (color, marker) in ROLES.items():
        here = roles == role
        ax.vlines(places[here], 0, change[here], color=color, linewidth=0.6 if len(places) > 60 else 1.4)
        ax.plot(
            places[here], change[here], linestyle="", marker=marker, color=color, markeredgewidth=0,
            markersize=2.6 if len(places) > 60 else 4.5,
        )  # fmt: skip
    depth_axis(ax, names)


def _caption(a: Layers, b: Layers, pairs: Pairs, change: NDArray[np.float64]) -> str:
    how = "by name" if pairs.by_name else "by order, since no name is shared"
    said = [f"{plural(len(change), 'layer')} matched {how}; the means are over those."]
    alone = [(each.model, len(each.names) - len(pairs.a)) for each in (a, b) if len(each.names) > len(pairs.a)]
    if alone:
        said.append(f"Without a partner: {', '.join(f'{count:,} of {name}' for name, count in alone)}.")
    lost = len(pairs.a) - len(change)
    said += [f"{plural(lost, 'pair')} left out: no fit on one side or both."] if lost else []
    up, down = int(np.count_nonzero(change > 0)), int(np.count_nonzero(change < 0))
    said.append(f"α is larger in {elided(b.model, 40)} in {up:,}, smaller in {down:,}. Shaded: 2 to 6.")
    return " ".join(said)


def comparisons(models: Sequence[Layers]) -> list[Picture]:
    """The first model against each of the next few."""
    found = [
        compare(models[0], other, "compare" if at == 0 else f"compare_{at + 1}")
        for at, other in enumerate(models[1 : 1 + MOST])
    ]
    return [picture for picture in found if picture]
