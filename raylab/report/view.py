"""What a report is made of, whatever its rows are about: raylab.report.views chooses which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import pyarrow as pa

from raylab.report.picture import Picture
from raylab.results.text import TextTable


class View(ABC):
    """Results as a person reads them. Nothing is computed before it is asked for."""

    query: str  # an example of SQL over these rows
    of_models: bool = True  # whether rows are of models; not of layers that no model has
    open_rows: int = 30  # a table of more rows is folded on the page

    @abstractmethod
    def findings(self) -> list[str]:
        """What the numbers say, in sentences as plain text. None is said that the results cannot bear."""

    @abstractmethod
    def pictures(self) -> list[Picture]:
        """All figures that these results allow, in the order of the page."""

    @abstractmethod
    def missing(self, drawn: Sequence[Picture]) -> list[str]:
        """Which figures there are not, and what they need."""

    @abstractmethod
    def tables(self) -> list[TextTable]:
        """Of the page."""

    def summary(self) -> list[TextTable]:
        """What a person wants to see on the terminal at the end of a run; by default the tables of the page."""
        return self.tables()

    def files(self) -> Mapping[str, tuple[str, pa.Table]]:
        """What is written beside the page as CSV: name -> what it holds, and the rows; by default nothing."""
        return {}
