"""What a report shows depends on what its rows are about: one view for each kind of results."""

from __future__ import annotations

import pyarrow as pa

from raylab.report.draws import Draws
from raylab.report.epochs import Epochs
from raylab.report.perturbed import Perturbed
from raylab.report.search import Search
from raylab.report.spectra import Spectra
from raylab.report.untrained import Untrained
from raylab.report.view import View


def of(table: pa.Table) -> View:
    """The view of a results table (`raylab.results.load`)."""
    kinds = (Search, Draws, Epochs, Untrained, Spectra)
    return next((kind(table) for kind in kinds if kind.of(table)), None) or Perturbed(table)
