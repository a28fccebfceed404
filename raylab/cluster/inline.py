"""No cluster: the same stream of results from this process, for a debugger and for machines without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raylab.types import Experiment, Trial, TrialResult


def stream(experiment: Experiment, pending: Sequence[Trial]) -> Iterator[list[TrialResult]]:
    """Results one at a time, in the order of the experiment's groups."""
    for group in experiment.groups(pending):
        for outcome in experiment.run(group):
            yield experiment.measure([outcome])
