"""What a sample tells Tune, without Tune: each row once, each epoch once and in order, nothing in silence."""

from types import SimpleNamespace

import pytest

from raylab.types import Outcome, Trial, TrialResult

reporting = pytest.importorskip("raylab.cluster.reporting")

GROUP = tuple(
    Trial("e", "m", 0, "c", "d", layer, "original", epoch, 0, "m") for epoch in (1, 2, 3) for layer in (None, "fc")
)


def numbers(trial):
    return {"epoch": trial.draw, "accuracy": trial.draw / 10} if trial.layer is None else {}


def outcome(trial):
    return Outcome(TrialResult(trial, "ok", numbers(trial)))


@pytest.fixture
def told(monkeypatch):
    """What Tune was told, in order; a test may add to `broken` the number of a report that raises."""
    heard = SimpleNamespace(reports=[], broken=set())

    def report(metrics, checkpoint=None):
        if len(heard.reports) in heard.broken:
            heard.broken.clear()
            raise OSError("the store is full")
        heard.reports.append(metrics)

    monkeypatch.setattr(reporting.tune, "report", report)
    monkeypatch.setattr(reporting.tune, "get_checkpoint", lambda: None)
    return heard


def work(known=(), run=lambda pending: map(outcome, pending)):
    experiment = SimpleNamespace(run=run, measure=lambda outcomes: [o.result for o in outcomes], release=lambda: None)
    reporting.work(
        {},
        open_=lambda params: (experiment, GROUP, {}),
        known={trial.id: numbers(trial) for trial in known},
        metric="accuracy",
        session="s",
    )


def epochs_of(told):
    return [(said["epoch"], said["accuracy"], said["epochs_left"]) for said in told.reports if "epoch" in said]


def rows_of(told):
    """The status by trial."""
    rows = [result for said in told.reports for result in said.get(reporting.ROWS, ())]
    found = {result.trial: result.status for result in rows}
    assert len(found) == len(rows), "a row was told twice"
    return found


ALL = [(1, 0.1, 2), (2, 0.2, 1), (3, 0.3, 0)]


@pytest.mark.parametrize(
    "known",
    [(), GROUP[:2], GROUP[:3], GROUP[:5], GROUP[1:2], GROUP[:2] + GROUP[4:], GROUP[4:], GROUP],
    ids=["none", "an epoch", "half an epoch", "all but the last", "a layer", "a hole", "the end", "all"],
)
def test_every_epoch_is_told_once_with_its_numbers_whatever_has_rows(told, known):
    work(known)
    assert epochs_of(told) == ALL
    assert rows_of(told) == dict.fromkeys(set(GROUP) - set(known), "ok")


def test_rows_that_wait_for_their_epoch_are_told_without_it(told, monkeypatch):
    monkeypatch.setattr(reporting, "TICK_SECONDS", -1.0)
    work()
    assert epochs_of(told) == ALL and len(told.reports) == 1 + len(GROUP)
    assert rows_of(told) == dict.fromkeys(GROUP, "ok")


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_rows_that_could_not_be_told_have_failed_for_that_reason(told, broken):
    told.broken = {broken}
    with pytest.raises(reporting.SampleError, match="the store is full"):
        work()
    assert "OSError: the store is full" in told.reports[-1][reporting.FAILED]
    assert set(rows_of(told)) == set(GROUP), "a row was lost in silence"
    assert all((trial.draw < broken) == (status == "ok") for trial, status in rows_of(told).items())
    heard = dict.fromkeys(ALL[: broken - 1])  # what has failed is no epoch of Tune's
    assert dict.fromkeys(epochs_of(told)) == heard


@pytest.mark.parametrize("broken", range(1, 7))
def test_so_have_rows_that_waited(told, monkeypatch, broken):
    monkeypatch.setattr(reporting, "TICK_SECONDS", -1.0)
    told.broken = {broken}
    with pytest.raises(reporting.SampleError, match="the store is full"):
        work()
    assert [rows_of(told)[trial] for trial in GROUP] == ["ok"] * (broken - 1) + ["failed"] * (7 - broken)


def test_rows_of_a_hole_are_told_once_though_the_epoch_after_it_cannot_be(told):
    told.broken = {3}  # plan and epoch 1; epoch 2 with its rows; epoch 3, which has rows already
    with pytest.raises(reporting.SampleError, match="the store is full"):
        work(GROUP[:2] + GROUP[4:])
    assert rows_of(told) == dict.fromkeys(GROUP[2:4], "ok") and set(epochs_of(told)) == set(ALL[:2])


def test_of_two_errors_the_first_is_the_reason(told, monkeypatch):
    def run(pending):
        yield outcome(pending[0])
        raise ArithmeticError("it diverges")

    told.broken = {1}  # the row that waited for its epoch
    with pytest.raises(reporting.SampleError, match="it diverges"):
        work(run=run)
    assert rows_of(told) == dict.fromkeys(GROUP, "failed")


def test_a_trial_that_gave_nothing_has_failed(told):
    with pytest.raises(reporting.SampleError, match="without a result"):
        work(run=lambda pending: map(outcome, pending[:3]))
    assert rows_of(told) == dict.fromkeys(GROUP[:3], "ok") | dict.fromkeys(GROUP[3:], "failed")
