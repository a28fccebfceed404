"""The layers of one or several models, as figures and tables of spectra see them.

A table is one of `raylab.analyze`, or a results folder's; of the latter only unperturbed layers count here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylab.errors import last_line
from raylab.results import frame
from raylab.types import ORIGINAL

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
# Role, colour (Okabe and Ito's, for colour-blind readers) and marker.
ROLES = {
    "attention": ("#0072B2", "o"),
    "MLP": ("#E69F00", "s"),
    "embedding": ("#009E73", "D"),
    "head": ("#CC79A7", "^"),
    "convolution": ("#56B4E9", "v"),
    "linear": ("#D55E00", "P"),
    "other": ("#757b87", "X"),
}
MOST_ROLES = 6
_WORDS = {
    "attention": re.compile(r"attn|attention|(^|_)(q|k|v|o|qkv|query|key|value)(_proj|_lin)?$|in_proj"),
    "MLP": re.compile(r"mlp|ffn|feed_forward|feedforward|intermediate|expert|gate_proj|up_proj|down_proj|c_fc"),
    "head": re.compile(r"^(lm_)?head$|classifier|^fc$|^score$"),
}
_EMBEDDING = re.compile(r"embed|(^|\.)w[tp]e$")


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of one model, in its order; `table` has a row each."""

    model: str
    table: pa.Table

    @cached_property
    def names(self) -> list[str]:
        """Name of each layer, with the number of the slice where a convolution has a row for each."""
        slices = frame.texts(self.table, "slice")
        return [f"{name}[{at}]" if at else name for name, at in zip(self._layers, slices, strict=True)]

    @cached_property
    def _layers(self) -> list[str]:
        return list(frame.texts(self.table, "layer"))

    @cached_property
    def states(self) -> NDArray[Any]:
        """OK, FAILED (an error, or no power law where one was looked for) or SKIPPED for each layer."""
        said = frame.texts(self.table, "status")
        looked_for = "alpha" in self.table.column_names
        fitted = np.isfinite(self.floats("alpha")) if looked_for else np.ones(len(said), dtype=bool)
        return np.where(said == SKIPPED, SKIPPED, np.where((said == FAILED) | ~fitted, FAILED, OK))

    @cached_property
    def ok(self) -> NDArray[np.bool_]:
        """Which layers have numbers to average."""
        return self.states == OK

    def count(self, state: str) -> int:
        """How many layers are in that state."""
        return int(np.count_nonzero(self.states == state))

    def floats(self, column: str) -> NDArray[np.float64]:
        """A column of numbers, NaN where there is none."""
        return frame.floats(self.table, column)

    def mean(self, column: str) -> float:
        """Mean over the layers whose fit succeeded, the same for every column; NaN without any."""
        values = self.floats(column)[self.ok]
        values = values[np.isfinite(values)]
        return float(values.mean()) if len(values) else np.nan

    def reason(self, place: int) -> str:
        """Why a layer failed or was skipped, in a few words; "" for one that is ok."""
        if self.states[place] == OK:
            return ""
        row = self.table.slice(place, 1)
        for column in ("reason", "error"):
            if text := frame.texts(row, column)[0].strip():
                return last_line(text)
        return f"no power law: {frame.texts(row, 'fit_status')[0] or 'alpha is not a number'}"

    def evals(self, place: int) -> NDArray[np.float64]:
        """The finite eigenvalues of a layer, ascending; empty where there are none."""
        if "evals" not in self.table.column_names:
            return np.zeros(0)
        values = np.asarray(self.table["evals"][place].as_py() or (), dtype=np.float64)
        return np.sort(values[np.isfinite(values)])

    @cached_property
    def with_spectrum(self) -> list[int]:
        """Places of the layers whose eigenvalues can be drawn on a logarithmic axis: some are above 0."""
        if "evals" not in self.table.column_names:
            return []
        return [at for at in range(self.table.num_rows) if self.evals(at).max(initial=0.0) > 0]

    @cached_property
    def roles(self) -> NDArray[Any]:
        """What each layer is for: by its name where there is attention in the model, else by its kind."""
        return roles(self._layers, list(frame.texts(self.table, "kind")))


def roles(names: Sequence[str], kinds: Sequence[str]) -> NDArray[Any]:
    """What layers are for: by their names where there is attention among them, else by their kinds."""
    by_name = [_role(name, kind) for name, kind in zip(names, kinds, strict=True)]
    found = by_name if "attention" in by_name else [_role("", kind) for kind in kinds]
    return np.asarray(few(found), dtype=object)


def roles_of(table: pa.Table) -> dict[str, str]:
    """What each layer of a results table is for, in the order of the forward pass."""
    layers, seen = frame.texts(table, "layer"), frame.texts(table, "kind")
    kinds = dict(zip(layers, seen, strict=True))
    names = frame.layers(table)
    return dict(zip(names, roles(names, [kinds[name] for name in names]).tolist(), strict=True))


def _role(name: str, kind: str) -> str:
    """The innermost part of the dotted name that tells; else what the kind says."""
    if "embed" in kind or _EMBEDDING.search(name.lower()):
        return "embedding"
    for part in reversed(name.lower().split(".")):
        for role, words in _WORDS.items():
            if words.search(part):
                return role
    if kind.startswith("conv"):
        return "convolution"
    return "linear" if kind in ("linear", "hf_conv1d") else "other"


def few(roles: Sequence[str]) -> list[str]:
    """At most MOST_ROLES different ones: the rarer are "other"."""
    counts = {role: roles.count(role) for role in dict.fromkeys(roles) if role != "other"}
    if len(counts) < MOST_ROLES or (len(counts) == MOST_ROLES and "other" not in roles):
        return list(roles)
    kept = sorted(counts, key=lambda role: -counts[role])[: MOST_ROLES - 1]
    return [role if role in kept else "other" for role in roles]


def models(table: pa.Table) -> list[Layers]:
    """The models of a table, in the order in which they appear, each with its unperturbed layers in its own order.

    Two models of one name are told apart by a number. A table without the column `model` is one of a single model.
    """
    perturbation = frame.texts(table, "perturbation")
    keep = (frame.texts(table, "layer") != "") & ((perturbation == "") | (perturbation == ORIGINAL))
    table = table.filter(pa.array(keep))
    code = frame.codes(table, *frame.MODEL)
    found: list[Layers] = []
    for each in dict.fromkeys(code.tolist()):
        rows = table.filter(pa.array(code == each))
        places = np.where(np.isnan(index := frame.floats(rows, "layer_index")), np.inf, index)
        name = frame.texts(rows, "model")[0] or "the model"
        taken = sum(other.model.partition(" #")[0] == name for other in found)
        order = np.lexsort((frame.floats(rows, "slice"), places))
        found.append(Layers(f"{name} #{taken + 1}" if taken else name, rows.take(pa.array(order))))
    return found


def elided(name: str, most: int = 30) -> str:
    """A long name by its end, which tells layers apart; where that is possible from a dot on."""
    if len(name) <= most:
        return name
    end = name[-(most - 1) :]
    return "…" + (end if name[-most] == "." or "." not in end.lstrip(".") else end.partition(".")[2])


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(count: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
