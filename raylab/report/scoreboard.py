"""The scoreboard of a results folder: every metric by the three tests of a verdict, as table, figure and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raylab.report import labels
from raylab.report import target as targets
from raylab.report.picture import Key, Picture
from raylab.report.scores import LOOKS, best_of, panels, told
from raylab.report.target import Target
from raylab.results import frame, standing, verdict
from raylab.results.cases import HALF, Criterion
from raylab.results.standing import AREA, SHIFT, Number, Standing
from raylab.results.text import TextTable, number
from raylab.types import ORIGINAL

FILE, EVIDENCE = "scoreboard.csv", "verdict.csv"
# Costs that the label is swept over, in units of the column.
THRESHOLDS = {"accuracy": (0.005, 0.01, 0.02, 0.05, 0.1, 0.2), "loss": (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)}
NAMED = 3  # metrics named in a sentence


@dataclass(frozen=True)
class Scoreboard:
    """Verdicts on the metrics of one results folder; empty where nothing was perturbed and evaluated."""

    evidence: pa.Table
    found: Sequence[Standing]
    target: Target

    def files(self) -> dict[str, tuple[str, pa.Table]]:
        """What is written as CSV: name -> what it holds, and the rows."""
        if not self.found:
            return {}
        board = ("Every metric by the three tests", standing.table(self.found))
        return {FILE: board, EVIDENCE: ("Every number they come from", self.evidence)}

    def tables(self) -> list[TextTable]:
        """The scoreboard, and the AUC by what is called robust."""
        return [each for each in (board(self), sweep(self)) if each]

    def pictures(self) -> list[Picture]:
        """The three numbers of every metric with their intervals."""
        shown = [one for one in self.found if any(np.isfinite(each.estimate) for each in (one.shift, one.area))]
        if not shown:
            return []
        kinds = dict.fromkeys(one.kind for one in shown)
        keys = [Key(LOOKS[kind].text, LOOKS[kind].color, LOOKS[kind].marker) for kind in LOOKS if kind in kinds]
        if shown[0].within.sure:
            keys.append(Key("hollow: (a) re-randomised, (b) within a layer", None, "D", hollow=True))
        drawn = panels(shown)
        return [Picture("scoreboard", "Scoreboard of metrics", _caption(self), drawn, keys, columns=3, same_rows=True)]

    def findings(self) -> list[str]:
        """Which metrics tell robust from critical cases, and how far re-initialising a robust layer moves them."""
        return [*_told(self), *_moved(self)]

    def label(self) -> str:
        """What makes a case robust, in words, and how many are."""
        row = next((row for row in self.evidence.to_pylist() if _main(row) and row["n"]), None)
        if row is None:
            return ""
        what = _label(row["label"], row["threshold"], self.target)
        return f"robust: {what}, {row['n_robust']:,} of {row['n']:,} cases"


def of(table: pa.Table, correlations: pa.Table) -> Scoreboard:
    """The scoreboard of a results table; `correlations` of it with its target."""
    target = targets.of(table) or targets.ACCURACY
    perturbed = (frame.texts(table, "layer") != "") & (frame.texts(table, "perturbation") != ORIGINAL)
    evaluated = np.isfinite(frame.floats(table, target.column))
    if not (perturbed & evaluated).any():
        return Scoreboard(verdict.SCHEMA.empty_table(), [], target)
    criterion = Criterion(
        target=target.column,
        better=target.better,
        thresholds=THRESHOLDS[target.column],
        main=target.robust / target.scale,
    )
    evidence = verdict.verdict(table, criterion, correlations)
    return Scoreboard(evidence, standing.standings(evidence), target)


def _main(row: dict[str, object]) -> bool:
    return row["question"] == verdict.ROBUST and bool(row["headline"]) and row["scope"] != verdict.WITHIN_LAYERS


def _label(label: str, threshold: float, target: Target) -> str:
    if label == HALF:
        return f"at least half of the {target.column} is left"
    return f"it costs at most {target.scale * threshold:g} {target.difference}"


# -- tables ------------------------------------------------------------------------------------------------------------

RULES = (
    f"Passed: (a) the whole 95 % interval is below {SHIFT:g} SD; (b) it is beyond {AREA:g}, over all cases and, of "
    f"several models, within layers too; (c) it is beyond {AREA:g}. Where the field takes no direction for good, "
    f"higher counts as better and below {number(1 - AREA, 1)} passes as well. Rank: by the lesser AUC of (b), from the "
    "metric's side."
)
MEANING = (
    "(a) by how many standard deviations over trained models a metric moves when a robust layer is re-initialised, "
    "which leaves the model as good as it was; (b) the probability that it puts a robust case above a critical one, "
    "over all cases (of several models: in units of its spread over trained models of that layer) and among cases of "
    "the same layer; (c) that it puts a re-initialised layer above the same layer re-randomised."
)
COLUMNS = {
    "(a) shift [SD]": "shift", "(b) AUC": "area", "(b) in a layer": "within", "(c) AUC": "groups",
    "ρ re-init.": "rho_reinit", "ρ re-rand.": "rho_rerandomize",
}  # fmt: skip


def board(scores: Scoreboard) -> TextTable | None:
    """Every metric that has a number, best first."""
    used = {name: field for name, field in COLUMNS.items() if _any(scores.found, field)}
    shown = [one for one in scores.found if any(_any([one], field) for field in used.values())]
    if not shown:
        return None
    rows = [
        [one.metric, _rank(one, at), one.kind, one.better or "–", *(interval(getattr(one, f)) for f in used.values()),
         one.passes() or "–"]
        for at, one in enumerate(shown, start=1)
    ]  # fmt: skip
    label = scores.label()
    note = f"{label[0].upper() + label[1:]}. " if label else ""
    note += f"{MEANING} ρ: with the {scores.target.column} within either group. {RULES}" + _without(scores.found, shown)
    header = ["metric", "rank", "kind", "better", *used, "passes"]
    return TextTable("Scoreboard of metrics", header, rows, texts=(0, 2, 3, len(header) - 1), note=note)


def _rank(one: Standing, at: int) -> str:
    return str(at) if np.isfinite(one.strength()) else "–"


def _any(found: Sequence[Standing], field: str) -> bool:
    return any(np.isfinite(getattr(one, field).estimate) for one in found)


def interval(value: Number, digits: int = 2) -> str:
    """An estimate with its interval: "0.54 [0.51, 0.57]"."""
    if not np.isfinite(value.estimate):
        return "–"
    digits = 1 if abs(value.estimate) >= 10 else digits
    ends = f" [{number(value.lo, digits)}, {number(value.hi, digits)}]" if value.sure else ""
    return number(value.estimate, digits) + ends


def _without(found: Sequence[Standing], shown: Sequence[Standing]) -> str:
    why: dict[str, list[str]] = {}
    for one in found:
        if one not in shown:
            why.setdefault(one.area.status.replace("_", " "), []).append(one.metric)
    return "".join(f" Without numbers, {status}: {', '.join(names)}." for status, names in why.items())


def sweep(scores: Scoreboard) -> TextTable | None:
    """The AUC over all cases by what is called robust, in the order of the scoreboard."""
    chosen = {row["metric"]: row["scope"] for row in scores.evidence.to_pylist() if _main(row)}
    rows = [
        row
        for row in scores.evidence.to_pylist()
        if row["question"] == verdict.ROBUST and row["scope"] == chosen.get(row["metric"])
    ]
    cells = {(row["metric"], row["label"]): row for row in rows if np.isfinite(row["estimate"])}
    used = [name for name in dict.fromkeys(row["label"] for row in rows) if any(key[1] == name for key in cells)]
    metrics = [one.metric for one in scores.found if any(key[0] == one.metric for key in cells)]
    if not (used and metrics):
        return None
    header, share = ["metric"], []
    for name in used:
        row = next(cells[metric, name] for metric in metrics if (metric, name) in cells)
        threshold = scores.target.scale * row["threshold"]
        header.append("half is left" if name == HALF else f"≤ {threshold:g} {scores.target.difference}")
        share.append(f"{row['n_robust']:,}")
    body = [[metric, *(number(cells.get((metric, name), {}).get("estimate")) for name in used)] for metric in metrics]
    n = next(iter(cells.values()))["n"]
    note = f"Over all cases. Robust of {n:,} cases, from left to right: {', '.join(share)}."
    return TextTable("AUC by what a robust case may cost", header, body, note=note)


# -- words -------------------------------------------------------------------------------------------------------------


def _caption(scores: Scoreboard) -> str:
    shaded = f"Shaded: what passes, if the whole interval lies there (without a direction also below {1 - AREA:.1f})."
    return f"Best first; bars: 95 % bootstrap intervals. {shaded} {MEANING}"


def _told(scores: Scoreboard) -> list[str]:
    """Of each kind of metric, how many tell robust from critical cases, and the best."""
    said = []
    for kind, look in LOOKS.items():
        ranked = [one for one in scores.found if one.kind == kind and np.isfinite(one.strength())]
        if not ranked:
            continue
        passed, best = sum(one.test_b() is True for one in ranked), ranked[0]
        where = f", {interval(best.within)} within a layer" if best.area.unit == "model" else ""
        label = "" if said else f" ({scores.label()})"
        said.append(
            f"{told(passed, len(ranked), look)}{label}. {best_of(best.metric, len(ranked))} {interval(best.area)} "
            f"over all cases{where}."
        )
    return said + _apart(scores)


def _apart(scores: Scoreboard) -> list[str]:
    """The metric that does best over all cases without doing so within a layer."""
    only = [
        (one.parts()[0].estimate, one)
        for one in scores.found
        if one.area.unit == "model" and one.within.sure and one.parts()[0].lo > 0.5 > one.parts()[1].lo
    ]
    if not only:
        return []
    best = max(only, key=lambda each: each[0])[1]
    others = f" So do {len(only) - 1} others." if len(only) > 1 else ""
    return [
        f"{labels.metric(best.metric)} has an AUC of {interval(best.area)} over all cases but {interval(best.within)} "
        f"within a layer: it tells layers apart, not what was done to them.{others}"
    ]


def _moved(scores: Scoreboard) -> list[str]:
    """How far re-initialising a robust layer moves data-free metrics."""
    moved = sorted(
        (one for one in scores.found if one.kind != "data-based" and one.shift.sure), key=lambda one: one.shift.estimate
    )
    if not moved:
        return []
    still = [labels.metric(one.metric) for one in moved if one.test_a()]
    alpha = next((one for one in moved if one.metric == "alpha"), None)
    middle = float(np.median([one.shift.estimate for one in moved]))
    said = (
        f"Re-initialising a robust layer, which leaves the model as good as it was, moves data-free metrics by "
        f"{number(middle, 1)} standard deviations over trained models (median of {len(moved)})"
    )
    said += f", α by {interval(alpha.shift, 1)}" if alpha else ""
    named = f" ({', '.join(still[:NAMED])}{', ...' if len(still) > NAMED else ''})" if still else ""
    return [f"{said}; {len(still) or 'none'} of them by less than {SHIFT:g}{named}."]
