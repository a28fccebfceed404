"""Spectra as pictures: the ESD of one layer with the laws fitted to it, and the ESDs of a whole model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raylab import laws
from raylab.report.layerwise import OK, Layers, elided, plural
from raylab.report.picture import INK, Key, Panel, Picture
from raylab.results.text import number, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BODY, TAIL, BULK, EDGE = "#56B4E9", "#D55E00", "#CC79A7", "#009E73"
MOST_PANELS = 24
SHOWN = 1e-6  # of the largest eigenvalue: what is smaller is beyond the left end of a logarithmic axis
NO_WIDTH = 1e-6  # of log λ: all eigenvalues are one
_KEYS = (Key("eigenvalues", BODY, "s"), Key("tail, λ ≥ xmin", TAIL, "s"), Key("fitted power law", INK, "_"))
_BULK_KEYS = (Key("fitted Marchenko–Pastur law", BULK, "_"), Key("bulk edge", EDGE, "|"), Key("spikes", TAIL, "^"))


@dataclass(frozen=True, eq=False)
class Esd:
    """A layer's eigenvalues and what was fitted to them; NaN where nothing was."""

    evals: NDArray[np.float64]  # ascending
    alpha: float
    xmin: float
    D: float
    sigma: float
    N: float
    M: float
    mp_sigma: float  # where the mean eigenvalue is 1
    bulk_edge: float
    num_spikes: float
    why_not: str  # why there is no power law; "" where there is one

    @classmethod
    def of(cls, layers: Layers, place: int) -> Esd:
        """That of a layer by its place."""
        names = ("alpha", "xmin", "D", "sigma", "N", "M", "mp_sigma", "bulk_edge", "num_spikes")
        values = {name: float(layers.floats(name)[place]) for name in names}
        why = layers.reason(place) if layers.states[place] != OK else ""
        if not why and not math.isfinite(values["alpha"]):
            why = "no power law was fitted"
        return cls(evals=layers.evals(place), why_not=why, **values)

    @property
    def fitted(self) -> bool:
        """Whether there is a power law to draw."""
        return math.isfinite(self.alpha) and self.xmin > 0

    @property
    def tail(self) -> NDArray[np.float64]:
        """The eigenvalues of the fitted tail; empty without a fit."""
        return self.evals[self.evals >= self.xmin] if self.fitted else self.evals[:0]

    def law(self, x: NDArray[Any]) -> NDArray[Any]:
        """Density of the fitted power law, scaled to the tail's share of all eigenvalues."""
        return len(self.tail) / len(self.evals) * laws.power_law(x, self.alpha, self.xmin)

    def bulk(self, x: NDArray[Any]) -> NDArray[Any]:
        """Density of the bulk as it was fitted: a square layer's through the singular values, its height 1/sigma^2."""
        mean = float(self.evals.mean())
        if self.N == self.M:
            return laws.quarter_circle_of_squares(x / mean) / self.mp_sigma**2 / mean
        return laws.marchenko_pastur(x / mean, self.mp_sigma, self.N / self.M) / mean


def esd(layers: Layers, place: int) -> Picture | None:
    """The ESD of one layer: density on logarithmic axes, the bulk on linear ones, and rank against size.

    None for a layer without eigenvalues.
    """
    if place not in layers.with_spectrum:
        return None
    found = Esd.of(layers, place)
    name = layers.names[place]
    said = _fit_note(found, len(found.tail))
    panels = [
        Panel(f"{name}: density", lambda ax: _density(ax, found), note=said, width=3.2, height=2.9),
        Panel(f"{name}: bulk", lambda ax: _bulk(ax, found), note=_bulk_note(found), width=3.2, height=2.9),
        Panel(f"{name}: rank", lambda ax: _survival(ax, found), note=_rank_note(found), width=3.2, height=2.9),
    ]
    keys = _KEYS if found.fitted else _KEYS[:1]
    keys += _BULK_KEYS if math.isfinite(found.mp_sigma) else ()
    return Picture("esd", f"ESD of {name}", _caption(found), panels, keys, columns=3)


def esd_by_layer(layers: Layers, most: int = MOST_PANELS, name: str = "esd_by_layer") -> Picture | None:
    """The ESD of up to `most` layers, evenly chosen by depth; None where no layer has eigenvalues."""
    there = layers.with_spectrum
    if not there:
        return None
    chosen = [there[i] for i in np.unique(np.linspace(0, len(there) - 1, min(most, len(there))).round().astype(int))]
    found = {at: Esd.of(layers, at) for at in chosen}
    panels = [
        Panel(layers.names[at], lambda ax, at=at: _density(ax, found[at]), _small_note(layers.names[at], found[at]))
        for at in chosen
    ]
    what = f"{len(chosen)} of {len(there)} layers, evenly chosen by depth" if len(chosen) < len(there) else "All layers"
    caption = (
        f"{what}. Density of the eigenvalues λ of WᵀW over logarithmic bins, both axes logarithmic; line: the power "
        "law λ^−α fitted from xmin up."
    )
    failed = sum(not each.fitted for each in found.values())
    caption += f" {plural(failed, 'layer')} without a line: no fit, for the reason above it." if failed else ""
    return Picture(name, f"Spectra of {elided(layers.model, 60)}", caption, panels, _KEYS)


# -- density on logarithmic axes ---------------------------------------------------------------------------------------


def _edges(found: Esd) -> NDArray[np.float64]:
    """Even steps of log λ with an edge at xmin, so that a bin lies in the tail or outside."""
    x = found.evals[found.evals > 0]
    low, high = math.log(max(x[0], SHOWN * x[-1])), math.log(x[-1])
    if high - low < NO_WIDTH:
        low, high = low - 1, high + 1
    bins = min(60, max(10, round(1.5 * math.sqrt(len(x)))))
    step = (high - low) / bins
    start = min(max(math.log(found.xmin), low), high) if found.fitted else low
    below, above = math.ceil((start - low) / step - 1e-9), math.ceil((high - start) / step - 1e-9)
    edges = np.exp(start + step * np.arange(-below, max(above, 1) + 1))
    if found.fitted and low <= math.log(found.xmin) <= high:
        edges[below] = found.xmin  # to the last bit: it is an eigenvalue itself
    edges[-1] = max(edges[-1], x[-1])
    return edges


def _density(ax: Axes, found: Esd) -> None:
    edges = _edges(found)
    counts = np.histogram(found.evals, edges)[0]
    density = counts / len(found.evals) / np.diff(edges)
    x = np.geomspace(found.xmin, found.evals[-1], 100) if found.fitted else np.zeros(0)
    y = found.law(x) if found.fitted else x
    floor = min(density[density > 0].min() / 3, y.min(initial=np.inf) / 1.5)
    tail = edges[:-1] >= found.xmin * (1 - 1e-9) if found.fitted else np.zeros(len(counts), dtype=bool)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for part, color in ((~tail, BODY), (tail, TAIL)):
        heights = np.where(part & (counts > 0), density, floor)
        ax.stairs(heights, edges, baseline=floor, fill=True, color=color, alpha=0.75, linewidth=0)
    if found.fitted:
        _mark_xmin(ax, found.xmin)
        ax.plot(x, y, color=INK, linewidth=1.6)
    ax.set_ylim(floor, 3 * max(density.max(), y.max(initial=0.0)))
    ax.set_xlabel("eigenvalue λ")
    ax.set_ylabel("density")
    _few_decades(ax)


def _mark_xmin(ax: Axes, xmin: float) -> None:
    ax.axvline(xmin, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
    ax.annotate(
        "xmin", (xmin, 1), (3, -2), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7,
        va="top",
    )  # fmt: skip


def _few_decades(ax: Axes) -> None:
    """Four ticks an axis; where there are not two powers of ten, plain numbers between them."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        axis.set_minor_formatter(NullFormatter())
        if math.floor(math.log10(high)) - math.ceil(math.log10(low)) >= 1:
            axis.set_major_locator(LogLocator(numticks=5))
            continue
        plain = MaxNLocator(4) if high / low < 3 else LogLocator(subs=(1, 2, 5), numticks=5)
        axis.set_major_locator(plain)
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


# -- rank against size -------------------------------------------------------------------------------------------------


def _survival(ax: Axes, found: Esd) -> None:
    x = found.evals[found.evals > SHOWN * found.evals[-1]]
    share = np.arange(len(x), 0, -1) / len(found.evals)
    tail = x >= found.xmin if found.fitted else np.zeros(len(x), dtype=bool)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for part, color in ((~tail, BODY), (tail, TAIL)):
        ax.plot(
            x[part], share[part], linestyle="", marker="o", markersize=3, color=color, markeredgewidth=0,
            rasterized=len(x) > 300,
        )  # fmt: skip
    if found.fitted:
        line = np.geomspace(found.xmin, found.evals[-1], 100)
        law = laws.power_law_survival(line, found.alpha, found.xmin)
        ax.plot(line, len(found.tail) / len(found.evals) * law, color=INK, linewidth=1.4)
        _mark_xmin(ax, found.xmin)
    ax.set_xlabel("eigenvalue λ")
    ax.set_ylabel("share of eigenvalues ≥ λ")
    _few_decades(ax)


# -- bulk --------------------------------------------------------------------------------------------------------------


def _limit(found: Esd) -> float:
    """Right end of the linear axis: where the bulk and a good part of what leaves it can be seen."""
    most = float(np.quantile(found.evals, 0.97))
    if math.isfinite(found.bulk_edge):
        law_end = 4 * float(found.evals.mean()) if found.N == found.M else found.bulk_edge
        most = max(most, 1.5 * found.bulk_edge, 1.05 * law_end)
    return 1.05 * min(most, float(found.evals[-1]))


def _bulk(ax: Axes, found: Esd) -> None:
    limit = _limit(found)
    bins = min(60, max(10, round(2 * math.sqrt(len(found.evals)))))
    edges = np.linspace(max(min(float(found.evals[0]), 0.0), 0.0), limit, bins + 1)
    density = np.histogram(found.evals, edges)[0] / len(found.evals) / np.diff(edges)
    ax.stairs(density, edges, fill=True, color=BODY, alpha=0.75, linewidth=0)
    highest = float(density.max())
    if math.isfinite(found.mp_sigma):
        x = np.linspace(0, limit, 1000)[1:]
        ax.plot(x, found.bulk(x), color=BULK, linewidth=2)
        ax.axvline(found.bulk_edge, color=EDGE, linewidth=1.4)
        spikes = found.evals[len(found.evals) - int(found.num_spikes) :] if found.num_spikes > 0 else found.evals[:0]
        spikes = spikes[spikes <= limit]
        ax.plot(spikes, np.full(len(spikes), 0.03 * highest), linestyle="", marker="^", markersize=3.5, color=TAIL)
        if found.N != found.M:
            highest = max(highest, min(float(found.bulk(x).max()), 1.5 * highest))
    ax.set_xlim(0, limit)
    ax.set_ylim(0, 1.12 * highest)
    ax.set_xlabel("eigenvalue λ")
    ax.set_ylabel("density")
    ax.locator_params(nbins=5)


# -- words -------------------------------------------------------------------------------------------------------------


def _fit_note(found: Esd, tail: int) -> str:
    if not found.fitted:
        return elided_end(found.why_not, 44)
    return f"α {number(found.alpha, 2)} ± {number(found.sigma, 2)}   D {number(found.D)}   tail {tail:,}"


def _small_note(name: str, found: Esd) -> str:
    if not found.fitted:
        return f"{elided(name)}\n{elided_end(found.why_not, 36)}"
    return f"{elided(name)}\nα {number(found.alpha, 2)} ± {number(found.sigma, 2)}   D {number(found.D, 2)}"


def elided_end(text: str, most: int) -> str:
    """A long text by its beginning."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _bulk_note(found: Esd) -> str:
    if not math.isfinite(found.mp_sigma):
        return "no Marchenko–Pastur fit"
    spikes = "" if math.isnan(found.num_spikes) else f"   {plural(int(found.num_spikes), 'spike')}"
    return f"bulk edge {significant(found.bulk_edge, 3)}{spikes}"


def _rank_note(found: Esd) -> str:
    return f"xmin {significant(found.xmin, 3)}" if found.fitted else ""


def _caption(found: Esd) -> str:
    said = [f"{plural(len(found.evals), 'eigenvalue')} λ of WᵀW, N × M = {found.N:.0f} × {found.M:.0f}."]
    if found.fitted:
        said.append(
            f"Power law λ^−α from xmin = {significant(found.xmin)} up: α = {number(found.alpha)} ± "
            f"{number(found.sigma)}, D = {number(found.D)}, {len(found.tail):,} eigenvalues in the tail."
        )
    else:
        said.append(f"No power law: {found.why_not.removeprefix('no power law: ')}.")
    if math.isfinite(found.mp_sigma):
        said.append(_about_bulk(found))
    beyond = int(np.count_nonzero(found.evals > _limit(found)))
    said += [f"Beyond the right end of the middle panel: {plural(beyond, 'eigenvalue')}."] if beyond else []
    small = int(np.count_nonzero(found.evals <= SHOWN * found.evals[-1]))
    said += [f"Below a millionth of the largest, not shown on logarithmic axes: {small:,}."] if small else []
    return " ".join(said)


def _about_bulk(found: Esd) -> str:
    if found.N == found.M:
        law = "quarter-circle law, the square layer's fit through singular values (its height follows σ, its width not)"
    else:
        law = "Marchenko–Pastur law"
    return f"Bulk: {law}, σ = {number(found.mp_sigma)} where the mean eigenvalue is 1."
