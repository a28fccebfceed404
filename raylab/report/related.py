"""What the correlations of metrics with the target say, in a few sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raylab.report import labels
from raylab.results.correlate import MIN_ROWS, USABLE
from raylab.results.text import number, p_value

Row = Mapping[str, Any]
FEW = 4  # rows, of which a correlation says nothing: of four any order has a chance of one in 24


def _rows(correlations: pa.Table, scope: str, condition: str = "all") -> dict[str, Row]:
    return {
        row["metric"]: row
        for row in correlations.to_pylist()
        if (row["scope"], row["condition"]) == (scope, condition) and row["status"] in USABLE and row["n"] > FEW
    }


def _of_most_layers(correlations: pa.Table) -> dict[str, Row]:
    """Means over layers that are compared: a mean over few layers is far from 0 by chance, if the others are constant.

    A metric takes part if no other has a correlation in more layers.
    """
    rows = _rows(correlations, "mean")
    layers = Counter(
        row["metric"]
        for row in correlations.to_pylist()
        if (row["scope"], row["condition"], row["status"]) == ("layer", "all", "ok")
    )
    most = max((layers[name] for name in rows), default=0)
    return {name: row for name, row in rows.items() if layers[name] == most}


def _strongest(rows: Mapping[str, Row]) -> str:
    return max(rows, key=lambda name: abs(rows[name]["rho"]), default="")


def _apart(rows: Mapping[str, Row]) -> tuple[list[str], list[str]]:
    """The paper's metrics that have an interval, and those of them whose interval is without 0."""
    known = [name for name in labels.PRIMARY if name in rows and np.isfinite(rows[name]["rho_lo"])]
    return known, [name for name in known if rows[name]["rho_lo"] * rows[name]["rho_hi"] > 0]


def _some(metrics: Sequence[str]) -> str:
    return f"{len(metrics)} {'has' if len(metrics) == 1 else 'have'}"


def _names(metrics: Sequence[str]) -> str:
    return f" ({', '.join(labels.metric(name) for name in metrics)})" if metrics else ""


def _name(metric: str) -> str:
    return "α" if metric == "alpha" else labels.metric(metric)


def about_metrics(correlations: pa.Table) -> list[str]:
    """alpha and the strongest metric, on average over layers."""
    rows = _rows(correlations, "mean")
    said = []
    for name in ("alpha", _strongest(_of_most_layers(correlations)) or "alpha"):
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


def about_groups(correlations: pa.Table) -> list[str]:
    """Whether the spectral metrics say anything, and whether the strongest correlation is one of groups only."""
    together = _rows(correlations, "mean")
    known, apart = _apart(together)
    said = []
    if known:
        said.append(
            f"Of the {len(known)} spectral metrics of the paper, {_some(apart)} an interval without 0{_names(apart)}."
        )
    strongest = _strongest(_of_most_layers(correlations))
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


def within_and_across(correlations: pa.Table) -> list[str]:
    """alpha and the strongest metric, among the draws of one layer and over all layers together."""
    scopes = {
        "within a layer": _rows(correlations, "mean"),
        "across layers": _rows(correlations, "pooled"),
    }
    compared = {"within a layer": _of_most_layers(correlations), "across layers": scopes["across layers"]}
    strongest = {where: _strongest(rows) for where, rows in compared.items()}
    said = []
    for name in dict.fromkeys(["alpha", *strongest.values()]):
        found = {where: rows[name] for where, rows in scopes.items() if name in rows}
        if not found:
            continue
        first = [where for where in scopes if strongest[where] == name]
        role = f", the strongest of {len(compared[first[0]]):,} metrics {' and '.join(first)}" if first else ""
        said.append(f"{_name(name)}{role}: {_in_each(found)}.")
    return [*said, *_without_zero(*scopes.values())]


def _in_each(found: Mapping[str, Row]) -> str:
    """A metric's correlation in each scope; n once, where it is the same."""
    counts = {row["n"] for row in found.values()}
    parts = []
    for where, row in found.items():
        what = "it" if parts else f"Spearman ρ with {row['target']}"
        n = f" (n = {row['n']:,})" if len(counts) > 1 else ""
        parts.append(f"{where}, {what} is {number(row['rho'])}{_interval(row)}, p {p_value(row['rho_p'])}{n}")
    return "; ".join(parts) + (f" (n = {counts.pop():,})" if len(counts) == 1 else "")


def _without_zero(within: Mapping[str, Row], across: Mapping[str, Row]) -> list[str]:
    known, apart = _apart(within)
    others, far = _apart(across)
    if not (known and others):
        return []
    return [
        f"Of the {len(known)} spectral metrics of the paper, {_some(apart)} an interval without 0 among draws of a "
        f"single layer{_names(apart)}, and {len(far)} across layers{_names(far)}, where layers of different size and "
        "scale are compared: the one does not follow from the other."
    ]


def too_few(correlations: pa.Table) -> list[str]:
    """Where there are fewer rows than a correlation needs to say anything."""
    rows = [row for row in correlations.to_pylist() if row["condition"] == "all" and row["n"]]
    most = {name: max((row["n"] for row in rows if row["scope"] == name), default=0) for name in ("layer", "pooled")}
    if 0 < most["pooled"] <= FEW:
        return [f"Too few perturbed rows for correlations with metrics: {most['pooled']}, more than {FEW} are needed."]
    if 0 < most["layer"] < MIN_ROWS:
        needed = f"at least {MIN_ROWS} are needed: draws={MIN_ROWS} or more"
        return [f"Too few rows of each layer for correlations within a layer: {most['layer']}, {needed}."]
    return []
