"""What a worker and an eigensolver do with their trials. Neither knows who else is at work.

A worker gives outcomes back in bundles of about a tenth of a second's work: what is expensive goes one by one, what is
cheap does not pay for a message each.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence

import ray

from raylab.errors import UserError, last_line, what_happened
from raylab.types import Experiment, Group, Outcome, Trial, TrialResult

BUNDLE_SECONDS = 0.1  # of work; a Ray object costs about a millisecond of the driver
BUNDLE_OUTCOMES = 256
BUNDLE_BYTES = 8 * 1024**2  # of weights
NOTHING_CAME = "the worker ended without a result for this trial"
# The last line of such a traceback: Python's, numpy's, torch's on a CPU. (On a GPU, batches are halved first.)
_NO_MEMORY = re.compile(r"^(\w+\.)*\w*(MemoryError|OutOfMemoryError)\b|can't allocate memory")

Bundle = list[Outcome]


class Measurer:
    """An actor of the eigensolver pool."""

    def node(self) -> str:
        """The id of the node that it is on."""
        return ray.get_runtime_context().get_node_id()

    def measure(self, experiment: Experiment, *bundles: Bundle) -> list[list[TrialResult]]:
        """The results of each bundle; all are measured together."""
        results = iter(measured(experiment, [outcome for bundle in bundles for outcome in bundle]))
        return [[next(results) for _ in bundle] for bundle in bundles]


def work(
    experiment: Experiment, groups: Sequence[Group], *, measure: bool, first: bool, last: bool
) -> Iterator[object]:
    """Work groups one after another. Gives the id of this node; then bundles, or, if it is to `measure`, their results.

    first: nobody has tried these before; else each outcome comes by itself, so that what kills a worker is found out.
    A trial that memory was too small for is left out, to be tried again elsewhere, unless this is the `last` time.
    """
    yield ray.get_runtime_context().get_node_id()
    outcomes = (outcome for group in groups for outcome in _outcomes(experiment, group, last))
    for bundle in _bundles(outcomes, BUNDLE_OUTCOMES if first else 1):
        yield measured(experiment, bundle) if measure else bundle


def measured(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[TrialResult]:
    """The results of outcomes; one without weights is finished as it is. What cannot be measured fails by itself."""
    weighty = [outcome for outcome in outcomes if outcome.weights is not None]
    results = iter(_measured(experiment, weighty))
    return [outcome.result if outcome.weights is None else next(results) for outcome in outcomes]


def _measured(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[TrialResult]:
    if not outcomes:
        return []
    try:
        results = experiment.measure(outcomes)
        if len(results) == len(outcomes):
            return results
        error = f"{len(outcomes)} outcomes were measured, and {len(results)} results came of it"
    except Exception as failure:
        error = what_happened(failure)
    if len(outcomes) == 1:
        return [_failed(outcomes[0].result.trial, error)]
    return [result for outcome in outcomes for result in _measured(experiment, [outcome])]


def _outcomes(experiment: Experiment, group: Group, last: bool) -> Iterator[Outcome]:
    """The outcomes of a group, failed ones for those that it breaks off before."""
    left = dict.fromkeys(group)
    error = NOTHING_CAME
    try:
        for outcome in experiment.run(group):
            left.pop(outcome.result.trial, None)
            if last or not lacks_memory(outcome.result.error):
                yield outcome
    except UserError as refusal:
        error = str(refusal)
    except Exception as failure:
        error = what_happened(failure)
    if last or not lacks_memory(error):
        yield from (Outcome(_failed(trial, error)) for trial in left)


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


def lacks_memory(error: str | None) -> bool:
    """Whether a traceback says that there was too little memory: less at another time, or on another node."""
    return bool(error) and bool(_NO_MEMORY.search(last_line(str(error))))


def _failed(trial: Trial, error: str) -> TrialResult:
    return TrialResult(trial, "failed", {}, error=error, host=socket.gethostname())
