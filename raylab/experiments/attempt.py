"""A trial that fails is a row, not the end of the run."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from raylab.errors import UserError, what_happened
from raylab.types import Outcome, Trial, TrialResult, Value


def attempt(trial: Trial, compute: Callable[[], Outcome]) -> Outcome:
    """What `compute` gives, or a failed outcome; either way with its seconds and host.

    Its error is the one line of a UserError, which says all there is to know, else the traceback.
    """
    start = time.perf_counter()
    try:
        outcome = compute()
    except UserError as error:
        outcome = Outcome(TrialResult(trial, "failed", {}, error=str(error)))
    except Exception as error:
        outcome = Outcome(TrialResult(trial, "failed", {}, error=what_happened(error)))
    seconds = outcome.result.seconds + time.perf_counter() - start
    return replace(outcome, result=replace(outcome.result, seconds=seconds, host=socket.gethostname()))


def add_values(result: TrialResult, values: Mapping[str, Value], seconds: float) -> TrialResult:
    """The result with more values, from another stage that took so many seconds."""
    return replace(result, values={**result.values, **values}, seconds=result.seconds + seconds)
