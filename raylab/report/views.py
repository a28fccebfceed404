"""What a report shows depends on what its rows are about: one view for each kind of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from raylab.report.draws import Draws
from raylab.report.epochs import Epochs
from raylab.report.perturbed import Perturbed
from raylab.report.picture import Picture
from raylab.report.search import Search
from raylab.report.spectra import Spectra
from raylab.report.untrained import Untrained
from raylab.results.text import TextTable


class View(Protocol):
    """Results as a person reads them. Nothing is computed before it is asked for."""

    @property
    def query(self) -> str:
        """An example of SQL over these rows."""
        ...

    @property
    def open_rows(self) -> int:
        """A table of more rows is folded on the page."""
        ...

    def findings(self) -> list[str]:
        """What the numbers say, in sentences as plain text. None is said that the results cannot bear."""
        ...

    def pictures(self) -> list[Picture]:
        """All figures that these results allow, in the order of the page."""
        ...

    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""
        ...

    def tables(self) -> list[TextTable]:
        """Of the page."""
        ...

    def summary(self) -> list[TextTable]:
        """What a person wants to see on the terminal at the end of a run."""
        ...

    def files(self) -> Mapping[str, tuple[str, pa.Table]]:
        """What is written beside the page as CSV: name -> what it holds, and the rows."""
        ...


def of(table: pa.Table) -> View:
    """The view of a results table (`raylab.results.load`)."""
    kinds = (Search, Draws, Epochs, Untrained, Spectra)
    return next((kind(table) for kind in kinds if kind.of(table)), None) or Perturbed(table)
