"""Which trials are tried again, which fail, and how long silence is borne: without a cluster."""

import pytest

pytest.importorskip("ray")

from raylab.cluster.flights import Flight, Job
from raylab.cluster.patience import Patience, Watch
from raylab.types import TrialResult
from tests.cluster.toy import Toy


def job(count=4):
    experiment = Toy(count=count, size=2)
    return Job(experiment.groups(experiment.trials())), experiment.trials()


def test_the_first_result_wins():
    work, trials = job()
    first = work.accept([TrialResult(trials[0], "ok", {"x": 1.0})])
    assert first[0].trial is work.groups[0][0], "it is about our own trial: its id is known"
    assert work.accept([TrialResult(trials[0], "ok", {"x": 2.0})]) == []


def test_what_has_come_is_not_tried_again():
    work, trials = job()
    work.accept([TrialResult(trial, "ok", {}) for trial in trials[:3]])
    assert work.after(True, retries=3) == [] and work.groups == [(trials[3],)]


def test_attempts_that_give_nothing_are_blamed_on_one_trial_before_they_are_on_all():
    work, trials = job()
    assert [work.after(False, retries=2) for _ in range(2)] == [[], []]
    work.error = "its worker died"
    (failed,) = work.after(False, retries=2)
    assert failed.trial == trials[0] and failed.error == "its worker died (tried 3 times)"
    assert list(work.left) == trials[1:]
    rest = work.after(False, retries=2)
    assert [result.trial for result in rest] == trials[1:] and not work.left and not work.groups


def test_who_gives_something_without_the_blamed_one_has_all_attempts_anew():
    work, trials = job()
    for _ in range(3):
        work.after(False, retries=2)
    work.accept([TrialResult(trials[1], "ok", {})])
    assert [work.after(fruitful, retries=2) for fruitful in (True, False, False)] == [[], [], []]
    (failed,) = work.after(False, retries=2)
    assert failed.trial == trials[2]


def test_patience_is_ten_times_the_longest_silence_and_grows_with_each_attempt():
    patience = Patience(None)
    assert patience.seconds(0) == 24 * 3600, "nothing has come back yet"
    patience.saw(2.0)
    assert [patience.seconds(attempt) for attempt in range(3)] == [300, 600, 1200]
    patience.saw(100.0)
    patience.saw(1.0)
    assert patience.seconds(0) == 1000
    assert Patience(0.5).seconds(3) == 30


def test_what_costs_more_than_all_that_has_come_back_may_be_silent_for_longer():
    """A run that goes on reads some models from their checkpoints in seconds, and trains others for an hour."""
    patience = Patience(None)
    patience.saw(2.0, cost=25)
    assert patience.seconds(0, cost=25) == 300
    assert patience.seconds(0, cost=1e9) == 24 * 3600, "nothing that was trained has come back yet"
    assert patience.seconds(0, cost=1000) == 800, "forty times as much: forty times as long"
    patience.saw(600.0, cost=1e9)
    assert patience.seconds(0, cost=1e9) == patience.seconds(0, cost=25) == 6000
    assert Patience(0.5).seconds(0, cost=1e9) == 30, "a person has said how long"


def test_what_costs_nothing_says_nothing_of_what_does():
    patience = Patience(None)
    patience.saw(0.1)
    assert (patience.seconds(0), patience.seconds(0, cost=1)) == (300, 24 * 3600)


def test_an_attempt_after_the_first_does_not_say_how_quick_such_work_is():
    """The one before it may have left a checkpoint."""
    work, _ = job()
    work.cost = 7.0
    first = Flight(work, seen=0.0, measured=True)
    for now in (5.0, 6.0, 8.0):
        first.gave(now)
    work.after(True, retries=3)
    assert (first.silence, first.paid, Flight(work, 8.0, True).paid) == (5.0, 7.0, 0.0)


def test_time_in_which_the_driver_did_not_look_does_not_count():
    """A driver that was stopped for an hour must not take its workers for hung."""
    times = iter([100.0, 101.0, 103.0, 3703.0, 3704.0])
    watch = Watch(lambda: next(times))
    assert [watch.look() for _ in range(4)] == [1.0, 3.0, 8.0, 9.0]
