"""The metrics of an experiment, refused on the driver where a worker could not write their columns."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from raylab import spectral
from raylab.errors import UserError
from raylab.types import Metric

if TYPE_CHECKING:
    from raylab.config import Config


def metrics_of(config: Config, taken: Collection[str]) -> tuple[Metric, ...]:
    """The metrics by name. `taken`: the columns that the experiment fills itself, none of which may be a metric's."""
    metrics = tuple(spectral.resolve(config.metrics))
    if config.spectral.conv == "slices":
        raise UserError(
            "spectral.conv=slices gives several rows a layer, which is for raylab.analyze: use pooled here."
        )
    shadowed = set(taken) & set(spectral.columns(metrics, config.spectral))
    if shadowed:
        raise UserError(f"A metric gives the column '{min(shadowed)}', which the experiment fills itself: rename it.")
    return metrics
