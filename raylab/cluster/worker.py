"""What a worker and an eigensolver do with their trials. Neither knows who else is at work.

A worker gives outcomes back in bundles of about a tenth of a second's work: what is expensive goes one by one, what is
cheap does not pay for a message each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import ray

from raylab.cluster.outcomes import measured, outcomes_of
from raylab.types import Experiment, Group, Measure, Outcome, TrialResult

BUNDLE_SECONDS = 0.1  # of work; a Ray object costs about a millisecond of the driver
BUNDLE_OUTCOMES = 256
BUNDLE_BYTES = 8 * 1024**2  # of weights

Bundle = list[Outcome]


class Measurer:
    """An actor of the eigensolver pool."""

    def node(self) -> str:
        """The id of the node that it is on."""
        return ray.get_runtime_context().get_node_id()

    def measure(self, measure: Measure, *bundles: Bundle) -> list[list[TrialResult]]:
        """The results of each bundle; all are measured together."""
        results = iter(measured(measure, [outcome for bundle in bundles for outcome in bundle]))
        return [[next(results) for _ in bundle] for bundle in bundles]


def work(experiment: Experiment, groups: Sequence[Group], *, here: bool, first: bool, last: bool) -> Iterator[object]:
    """Work groups one after another. Gives the id of this node; then bundles, or their results, measured `here`.

    first: nobody has tried these before; else each outcome comes by itself, so that what kills a worker is found out.
    A trial that memory was too small for is left out, to be tried again elsewhere, unless this is the `last` time.
    """
    yield ray.get_runtime_context().get_node_id()
    outcomes = (outcome for group in groups for outcome in outcomes_of(experiment, group, last))
    for bundle in _bundles(outcomes, BUNDLE_OUTCOMES if first else 1):
        yield measured(experiment.measure, bundle) if here else bundle


def _bundles(outcomes: Iterable[Outcome], most: int) -> Iterator[Bundle]:
    bundle: Bundle = []
    size, since = 0, time.monotonic()
    for outcome in outcomes:
        bundle.append(outcome)
        size += 0 if outcome.weights is None else outcome.weights.nbytes
        if len(bundle) >= most or size >= BUNDLE_BYTES or time.monotonic() - since >= BUNDLE_SECONDS:
            yield bundle
            bundle, size, since = [], 0, time.monotonic()
    if bundle:
        yield bundle
