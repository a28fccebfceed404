"""What becomes of an experiment's trials where they are worked: a mistake in one fails that one. Knows no Ray."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence

from raylab.errors import UserError, last_line, what_happened
from raylab.types import Experiment, Group, Measure, Outcome, Trial, TrialResult

NOTHING_CAME = "the worker ended without a result for this trial"
# The last line of such a traceback: Python's, numpy's, torch's on a CPU. (On a GPU, batches are halved first.)
_NO_MEMORY = re.compile(r"^(\w+\.)*\w*(MemoryError|OutOfMemoryError)\b|can't allocate memory")


def measured(measure: Measure, outcomes: Sequence[Outcome]) -> list[TrialResult]:
    """The results of outcomes; one without weights is finished as it is. What cannot be measured fails by itself."""
    weighty = [outcome for outcome in outcomes if outcome.weights is not None]
    results = iter(_measured(measure, weighty))
    return [outcome.result if outcome.weights is None else next(results) for outcome in outcomes]


def _measured(measure: Measure, outcomes: Sequence[Outcome]) -> list[TrialResult]:
    if not outcomes:
        return []
    try:
        results = measure(outcomes)
        if len(results) == len(outcomes):
            return results
        error = f"{len(outcomes)} outcomes were measured, and {len(results)} results came of it"
    except Exception as failure:
        error = what_happened(failure)
    if len(outcomes) == 1:
        return [_failed(outcomes[0].result.trial, error)]
    return [result for outcome in outcomes for result in _measured(measure, [outcome])]


def outcomes_of(experiment: Experiment, group: Group, last: bool = True) -> Iterator[Outcome]:
    """The outcomes of a group, failed ones for those that it breaks off before.

    A trial that memory was too small for is left out, to be tried again elsewhere, unless this is the `last` time.
    """
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


def lacks_memory(error: str | None) -> bool:
    """Whether a traceback says that there was too little memory: less at another time, or on another node."""
    return bool(error) and bool(_NO_MEMORY.search(last_line(str(error))))


def _failed(trial: Trial, error: str) -> TrialResult:
    return TrialResult(trial, "failed", {}, error=error, host=socket.gethostname())
