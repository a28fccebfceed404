"""What a report shows of models whose layers were perturbed and which were evaluated."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import pyarrow as pa

from raylab.report import figures, findings, scoreboard, tables
from raylab.report import target as targets
from raylab.report.picture import Picture
from raylab.report.scoreboard import Scoreboard
from raylab.report.view import View
from raylab.results.correlate import correlate
from raylab.results.text import TextTable

EXAMPLE = """SELECT layer, perturbation, avg({column}), avg(alpha)
  FROM trials WHERE status = 'ok' AND isfinite(alpha) GROUP BY ALL ORDER BY ALL"""


class Perturbed(View):
    """The view of such results. `correlations`: of these rows, where the caller has them."""

    def __init__(self, table: pa.Table, correlations: pa.Table | None = None) -> None:
        self.table = table
        self.target = targets.of(table)
        self.query = EXAMPLE.format(column=self.target.column if self.target else "seconds")
        if correlations is not None:
            self.correlations = correlations

    @functools.cached_property
    def correlations(self) -> pa.Table:
        """With the target, accuracy or loss; none where nothing was evaluated."""
        return correlated(self.table)

    @functools.cached_property
    def scores(self) -> Scoreboard:
        """The verdicts on all metrics."""
        return scoreboard.of(self.table, self.correlations)

    def findings(self) -> list[str]:
        """What the numbers say, in sentences."""
        return [*findings.findings(self.table, self.correlations), *self.scores.findings()]

    def pictures(self) -> list[Picture]:
        """All that these results allow."""
        return [*figures.pictures(self.table, self.correlations), *self.scores.pictures()]

    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""
        names, what = {picture.name for picture in drawn}, self.target.column if self.target else "accuracy"
        reasons = {
            f"{what}_by_layer": f"{what} by layer (needs perturbed layers that were evaluated)",
            "alpha_by_layer": "alpha by layer (needs alpha of layers)",
            "metrics": f"{what} against the spectral metrics (needs perturbed layers with {what} and metrics)",
            "rho_by_metric": "correlations (need at least four perturbed rows of a layer)",
        }
        if "train_seconds" in self.table.column_names:  # models that are given are not compared layer by layer
            reasons["similarity"] = "similarity to the unperturbed model (no such column was measured)"
        return [text for name, text in reasons.items() if name not in names]

    def tables(self) -> list[TextTable]:
        """Of the page."""
        table, found = self.table, self.correlations
        names = list(dict.fromkeys(found["condition"].to_pylist()))
        made = [tables.layer_table(table, column) for column in tables.main_columns(table)]
        made += [*self.scores.tables(), tables.grouping_table(found), tables.metric_table(found)]
        made += [tables.metric_table(found, "pooled")]
        made += [tables.metric_table(found, "mean", name) for name in names if name != "all"]
        made += [tables.layer_table(table, column) for column in tables.other_columns(table)]
        return [each for each in made if each]

    def summary(self) -> list[TextTable]:
        """Of the terminal."""
        return tables.summary(self.table, self.correlations)

    def files(self) -> Mapping[str, tuple[str, pa.Table]]:
        """What is written beside the page as CSV: name -> what it holds, and the rows."""
        found = {"correlations.csv": ("Every correlation, per layer too", self.correlations)} | self.scores.files()
        return found if self.correlations.num_rows else {}


def correlated(table: pa.Table) -> pa.Table:
    """The correlations of a results table with its target, accuracy or loss; none where nothing was evaluated."""
    target = targets.of(table)
    return correlate(table, target.column) if target else correlate(table, target="seconds", metrics=[])
