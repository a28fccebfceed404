"""What a report says of spectra alone: models whose layers were measured, nothing perturbed, nothing evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raylab.report import by_depth, compare, esd
from raylab.report.layerwise import FAILED, OK, SKIPPED, Layers, listed, models, plural
from raylab.report.picture import Picture
from raylab.report.view import View
from raylab.results import frame, schema
from raylab.results.text import TextTable, number, significant
from raylab.types import ORIGINAL

TERMINAL_ROWS = 40
MODELS = 4  # whose spectra and findings are shown one by one
# Column of a results table, its name in the table of layers, and its decimals.
COLUMNS = (
    ("num_tail", "tail", 0),
    ("log_norm", "log norm", 3),
    ("stable_rank", "stable rank", 2),
    ("mp_softrank", "MP soft rank", 3),
    ("num_spikes", "spikes", 0),
    ("num_traps", "traps", 0),
)
MEANS = (("alpha", "mean α"), ("alpha_hat", "weighted α"), ("log_alpha_norm", "log α-norm"), ("log_norm", "log norm"))
QUERY = "SELECT model, layer, N, M, alpha, sigma, D, num_tail, stable_rank FROM trials ORDER BY model, layer_index"


class Spectra(View):
    """The view of such results."""

    query = QUERY

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.open_rows = table.num_rows  # no table is folded

    @staticmethod
    def of(table: pa.Table) -> bool:
        """Whether these are results of spectra alone: layers, none perturbed, and neither accuracy nor loss."""
        evaluated = any(np.isfinite(frame.floats(table, name)).any() for name in ("accuracy", "loss"))
        return not evaluated and frame.conditions(table) == [ORIGINAL]

    def findings(self) -> list[str]:
        """What the spectra say."""
        return findings(self.table)

    def pictures(self) -> list[Picture]:
        """All that these results allow."""
        return pictures(self.table)

    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""
        return missing(drawn)

    def tables(self) -> list[TextTable]:
        """The models, then the layers of each."""
        return tables(self.table)

    def summary(self) -> list[TextTable]:
        """The same, as many rows as a terminal bears."""
        models, *layers = tables(self.table, TERMINAL_ROWS)
        return [*layers[:MODELS], models]


def pictures(table: pa.Table) -> list[Picture]:
    """All figures that these results allow, in the order of the report."""
    found = models(table)
    several = [by_depth.alpha_by_depth(found), by_depth.alpha_histogram(found)]
    others = by_depth.metrics_by_depth(found, (*by_depth.METRICS, *own(table)))
    drawn = [*several, *compare.comparisons(found), *_spectra(found), others]
    return [picture for picture in drawn if picture]


def _spectra(found: Sequence[Layers]) -> list[Picture | None]:
    shown = found[:MODELS]
    most = max(esd.MOST_PANELS // max(len(shown), 1), 8)
    names = ["esd_by_layer" if at == 0 else f"esd_by_layer_{at + 1}" for at in range(len(shown))]
    return [esd.esd_by_layer(each, most, name) for each, name in zip(shown, names, strict=True)]


def missing(drawn: Sequence[Picture]) -> list[str]:
    """Which figures there are not, and what they need."""
    reasons = {
        "alpha_by_depth": "alpha by depth (no layer has a power-law fit)",
        "esd_by_layer": "spectra (there are no eigenvalues: measure with the metric esd)",
        "metrics_by_depth": "other metrics by depth (none was measured)",
    }
    names = {picture.name for picture in drawn}
    return [text for name, text in reasons.items() if name not in names]


# -- tables ------------------------------------------------------------------------------------------------------------


def tables(table: pa.Table, most: int | None = None) -> list[TextTable]:
    """The models, then the layers of each: all of them, or `most` rows for a terminal."""
    found = models(table)
    made = [model_table(found)] if found else []
    return made + [layer_table(each, most, named=len(found) > 1) for each in found]


def own(table: pa.Table) -> list[str]:
    """The columns of a user's metrics that are numbers."""
    numbers = schema.metric_columns(table.schema)
    return [name for name in numbers if schema.group(table.schema.field(name)) == "own"]


def model_table(found: Sequence[Layers]) -> TextTable:
    """A row a model: how many layers, and means over those whose fit succeeded."""
    means = [(column, name) for column, name in MEANS if any(np.isfinite(each.mean(column)) for each in found)]
    rows = [
        [
            each.model,
            *(f"{each.count(state):,}" for state in (OK, FAILED, SKIPPED)),
            *(number(each.mean(column)) for column, _ in means),
        ]
        for each in found
    ]
    header = ["model", "measured", "failed", "skipped", *(name for _, name in means)]
    note = (
        "Means over the measured layers, the same for every column. Weighted α: mean of α·log₁₀ λmax; log α-norm: mean "
        "of log₁₀ Σλ^α; log norm: mean of log₁₀ Σλ. Failed: no power law."
    )
    return TextTable("Models" if len(found) > 1 else "Model", header, rows, note=note)


def layer_table(layers: Layers, most: int | None = None, named: bool = False) -> TextTable:
    """A row a layer, in the order of the model."""
    columns = [*COLUMNS, *((name, name, 3) for name in own(layers.table))]
    shown = [column for column in columns if np.isfinite(layers.floats(column[0])).any()]
    total = len(layers.names)
    places = range(total if most is None else min(most, total))
    rows = [_row(layers, at, shown) for at in places]
    header = ["layer", "kind", "N", "M", "α ± σ", "D", "xmin", *(name for _, name, _ in shown), "status"]
    note = "σ: standard error of α. D: Kolmogorov-Smirnov distance between the tail and the power law from xmin up."
    left = total - len(rows)
    note = f"... and {left:,} more: see the report. {note}" if left else note
    title = f"Layers of {layers.model}" if named else "Layers"
    return TextTable(title, header, rows, texts=(0, 1, len(header) - 1), note=note)


def _row(layers: Layers, at: int, shown: Sequence[tuple[str, str, int]]) -> list[str]:
    def value(column: str) -> float:
        return float(layers.floats(column)[at])

    state, reason = str(layers.states[at]), layers.reason(at)
    alpha = f"{number(value('alpha'))} ± {number(value('sigma'))}" if np.isfinite(value("alpha")) else "–"
    others = [number(value(column), digits) for column, _, digits in shown]
    kind = str(frame.texts(layers.table, "kind")[at])
    return [
        layers.names[at], kind, number(value("N"), 0), number(value("M"), 0), alpha, number(value("D")),
        significant(value("xmin")), *others, f"{state}: {reason}" if reason else state,
    ]  # fmt: skip


# -- findings ----------------------------------------------------------------------------------------------------------


def findings(table: pa.Table) -> list[str]:
    """What the spectra say, in a few sentences."""
    found = models(table)
    named = len(found) > 1
    said = [
        f"{each.model}: {sentence}" if named else sentence[0].upper() + sentence[1:]
        for each in found[:MODELS]
        for sentence in _about(each)
    ]
    left = len(found) - MODELS
    return [*said, f"{left:,} more models: see the table."] if left > 0 else said


def _about(layers: Layers) -> list[str]:
    alpha = layers.floats("alpha")
    fitted = np.flatnonzero(layers.ok & np.isfinite(alpha)).tolist()
    said = []
    if fitted:
        said.append(_in_band(layers, fitted))
        distance = layers.floats("D")
        worst = sorted((at for at in fitted if np.isfinite(distance[at])), key=lambda at: -distance[at])[:3]
        names = ", ".join(f"{layers.names[at]} ({number(distance[at])})" for at in worst)
        said += [f"the power law fits worst, by D, in {names}."] if names else []
    traps = layers.floats("num_traps")
    trapped = [at for at in np.argsort(-np.nan_to_num(traps), kind="stable").tolist() if traps[at] > 0]
    if trapped:
        names = listed([f"{layers.names[at]} ({traps[at]:.0f})" for at in trapped])
        said.append(f"{plural(len(trapped), 'layer')} with correlation traps: {names}.")
    failed = np.flatnonzero(layers.states == FAILED).tolist()
    if failed:
        names = listed([f"{layers.names[at]} ({layers.reason(at).removeprefix('no power law: ')})" for at in failed])
        said.append(f"{plural(len(failed), 'layer')} without a power law: {names}.")
    return said


def _in_band(layers: Layers, fitted: Sequence[int]) -> str:
    low, high = by_depth.BAND
    alpha = layers.floats("alpha")
    within = sum(low <= alpha[at] <= high for at in fitted)
    text = (
        f"mean α is {number(layers.mean('alpha'), 2)}; of {plural(len(fitted), 'layer')}, {within:,} have α in 2 to 6"
    )
    below = sorted((at for at in fitted if alpha[at] < low), key=lambda at: alpha[at])
    above = sorted((at for at in fitted if alpha[at] > high), key=lambda at: -alpha[at])
    for what, places in (("below", below), ("above", above)):
        names = [f"{layers.names[at]} ({number(alpha[at], 2)})" for at in places]
        text += f", {len(places):,} {what}: {listed(names, 3)}" if places else f", none {what}"
    return text + "."
