"""What a sample tells Tune, without Tune: each row once, each epoch once and in order, nothing in silence."""

from types import SimpleNamespace

import pytest

from raylab.types import Outcome, Trial, TrialResult

reporting = pytest.importorskip("raylab.cluster.reporting")

GROUP = tuple(
    Trial("e", "m", 0, "c", "d", layer, "original", epoch, 0, "m") for epoch in (1, 2, 3) for layer in (None, "fc")
)


def outcome(trial):
    values = {"epoch": trial.draw, "accuracy": trial.draw / 10} if trial.layer is None else {}
    return Outcome(TrialResult(trial, "ok", values))


def numbers(trial):
    return {"epoch": trial.draw, "accuracy": trial.draw / 10} if trial.layer is None else {}


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
    return {result.trial: result.status for said in told.reports for result in said.get(reporting.ROWS, ())}


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


def test_a_trial_that_gave_nothing_has_failed(told):
    with pytest.raises(reporting.SampleError, match="without a result"):
        work(run=lambda pending: map(outcome, pending[:3]))
    assert [status for _, status in sorted(rows_of(told).items(), key=lambda row: GROUP.index(row[0]))] == [
        *["ok"] * 3,
        *["failed"] * 3,
    ]
