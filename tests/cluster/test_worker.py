"""What a worker gives back, without a cluster."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("ray")

from raylab.cluster import worker
from raylab.cluster.outcomes import lacks_memory, measured, outcomes_of
from raylab.errors import what_happened
from raylab.types import Outcome, TrialResult
from tests.cluster.toy import Toy


def outcomes(experiment, last=False):
    groups = experiment.groups(experiment.trials())
    return [outcome for group in groups for outcome in outcomes_of(experiment, group, last)]


def test_cheap_outcomes_come_in_bundles_and_expensive_ones_by_themselves(monkeypatch):
    now = iter(range(10**6))
    given = [Outcome(TrialResult(trial, "ok", {})) for trial in Toy(count=300).trials()]
    monkeypatch.setattr(worker.time, "monotonic", lambda: 0.001 * next(now))
    assert [len(bundle) for bundle in worker._bundles(iter(given), 256)] == [100, 100, 100]
    monkeypatch.setattr(worker.time, "monotonic", lambda: 0.2 * next(now))
    assert [len(bundle) for bundle in worker._bundles(iter(given), 256)] == [1] * 300


def test_a_bundle_is_not_larger_than_the_object_store_likes(monkeypatch):
    monkeypatch.setattr(worker.time, "monotonic", lambda: 0.0)
    weights = np.zeros(2 * 1024**2 // 8)
    given = [Outcome(TrialResult(trial, "ok", {}), weights=weights) for trial in Toy().trials()]
    assert [len(bundle) for bundle in worker._bundles(iter(given), 256)] == [4, 4, 4]
    assert [len(bundle) for bundle in worker._bundles(iter(given), 1)] == [1] * 12


def test_a_group_that_raises_fails_what_it_had_not_given():
    results = [outcome.result for outcome in outcomes(Toy(count=12, size=4, raises_in=1))]
    failed = [result for result in results if result.status == "failed"]
    assert len(results) == 12 and [result.trial.replicate for result in failed] == [1, 1]
    assert all("RuntimeError: no such luck" in str(result.error) for result in failed)


class Hungry(Toy):
    """Too large for the memory there is: one trial by itself, and a group as a whole."""

    def run(self, group):
        for outcome in super().run(group):
            if outcome.result.trial.replicate == 2:
                raise MemoryError
            trial, error = outcome.result.trial, what_happened(MemoryError("Unable to allocate"))
            fails = trial.replicate == 1 and trial.layer == "fc0"
            yield replace(outcome, result=TrialResult(trial, "failed", {}, error=error)) if fails else outcome


def test_what_memory_was_too_small_for_is_left_out_until_the_last_attempt():
    given = outcomes(Hungry(count=12, size=4))
    assert len(given) == 7 and {outcome.result.status for outcome in given} == {"ok"}
    last = outcomes(Hungry(count=12, size=4), last=True)
    assert len(last) == 12 and [outcome.result.status for outcome in last].count("failed") == 5
    assert all("MemoryError" in str(outcome.result.error) for outcome in last if outcome.result.status == "failed")


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (None, False),
        ("Traceback ...\nMemoryError", True),
        ("Traceback ...\nMemoryError: Unable to allocate 8 GiB\n", True),
        ("Traceback ...\nRuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", True),
        pytest.param(what_happened(MemoryError("Unable to allocate 8 GiB")), True, id="as it is told"),
        ("Traceback ...\nValueError: a MemoryError is not what this is", False),
        ("Traceback of a MemoryError ...\nRuntimeError: no such luck", False),
    ],
)
def test_tells_a_lack_of_memory_by_the_exception_at_the_end(error, lacks):
    assert lacks_memory(error) is lacks


class Picky(Toy):
    def measure(self, outcomes):
        if any(outcome.result.trial.layer == "fc2" for outcome in outcomes):
            raise ArithmeticError("not this one")
        return super().measure(outcomes)


def test_what_cannot_be_measured_fails_by_itself():
    results = measured(Picky().measure, outcomes(Picky()))
    assert [result.status for result in results] == ["ok", "ok", "failed", "ok"] * 3


def test_an_error_is_told_without_colours():
    from raylab.cluster.fetching import said

    assert said("\x1b[36mray::work()\x1b[39m (pid=6974)\n  no\n") == "ray::work() (pid=6974)\n  no"
