"""The metrics of an experiment: refused on the driver where they cannot be written, measured on a worker."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from raylab import spectral
from raylab.errors import UserError
from raylab.experiments.attempt import add_values
from raylab.types import Metric, Outcome, SpectralOptions, TrialResult

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


def measured(outcomes: Sequence[Outcome], metrics: Sequence[Metric], options: SpectralOptions) -> list[TrialResult]:
    """The results with the metrics of the weights that came with them; one without weights is finished as it is."""
    items = [(o.weights, o.layer) for o in outcomes if o.weights is not None and o.layer is not None]
    seeds = [int(o.result.trial.rng("spectrum").integers(2**63)) for o in outcomes if o.weights is not None]
    start = time.perf_counter()
    values = iter(spectral.measure_many(items, metrics, options, seeds))
    seconds = (time.perf_counter() - start) / max(len(items), 1)
    return [
        outcome.result if outcome.weights is None else add_values(outcome.result, next(values), seconds)
        for outcome in outcomes
    ]
