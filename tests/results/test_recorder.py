"""The driver's results while their place is out of reach: it waits, says so once, and commits them all."""

import contextlib
import io
import itertools
import threading

import made_up
import pytest
from rich.console import Console

from raylab import places, recorder
from raylab.config import compose
from raylab.interrupts import Interrupts
from raylab.places import outage
from raylab.recorder import Recorder, open_recorder
from raylab.report.progress import Progress
from raylab.results import ParquetSink, load, schema, write_run_info
from raylab.results.logbook import Logbook
from raylab.results.status import DONE, Watcher
from raylab.types import TrialResult

PLAN = made_up.trials(2)
NUMBER = itertools.count()


class NoTracker:
    def progress(self, numbers):
        pass


@pytest.fixture
def url(cloud, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    monkeypatch.setattr(outage, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(recorder, "LOOK_SECONDS", 0.02)
    return f"{cloud.bucket('recorded')}/{next(NUMBER)}"


@contextlib.contextmanager
def at_work(url):
    """A recorder that commits each row, and its screen."""
    screen = io.StringIO()
    rows = ParquetSink(url, schema.schema(made_up.COLUMNS), made_up.PROVENANCE, flush_rows=1)
    with rows, Progress("plain", Console(file=screen, width=400)) as display:
        yield Recorder(rows, PLAN, display, Logbook(url), NoTracker(), Interrupts(lambda: None)), screen


def good(at):
    return TrialResult(PLAN[at], "ok", {"accuracy": 0.5})


def test_the_end_of_a_run_waits_for_s3(url, cloud):
    with at_work(url) as (taking, screen):
        with taking.committing():
            taking.take([good(0)])
            cloud.disturb("503", lambda method, path, before: "trials" in path and method == "PUT" and before < 15)
            taking.take([good(1), good(2)])
            assert taking.rows.waiting == 2
        assert taking.rows.waiting == 0 and load(url, ["trial_id"]).num_rows == 3
        said = [line for line in screen.getvalue().splitlines() if line]
        assert "SlowDown" in said[0] and said[1].startswith("Work goes on and rows wait here")
        assert said[2:] == [f"{url} answers again: no row is lost."]


def test_an_outage_is_said_while_no_rows_come_as_workers_wait_for_the_same_place(url):
    with at_work(url) as (taking, screen):
        outages = iter([None, "s3://x is silent.", "s3://x is silent.", None, None])
        taking.heart_outage = lambda: next(outages)
        for _ in range(5):
            taking.tick()
        said = [line for line in screen.getvalue().splitlines() if line]
        assert said[0] == "s3://x is silent." and said[1].startswith("Work goes on and rows wait here")
        assert said[2:] == [f"{url} answers again: no row is lost."]


def test_what_failed_in_another_command_is_no_failure_of_this_one(tmp_path):
    """`models=2`, some of the second failed; then `models=1`, all well: exit code 0, and raylab.status says so too."""
    info = {"planned": len(made_up.trials(1)), "command": "python -m raylab.run models=1", "started_at": "2026-01-01"}
    first, columns = made_up.trials(1), schema.schema(made_up.COLUMNS)
    with ParquetSink(tmp_path, columns, made_up.PROVENANCE) as rows:
        write_run_info(tmp_path, info)
        for trial in PLAN[len(first) :]:
            rows.write(TrialResult(trial, "failed" if trial.layer == "fc2" else "ok", {}))
        config, _ = compose([f"results={tmp_path}", "progress=none"])
        with open_recorder(config, info, rows, first, NoTracker(), Interrupts(lambda: None)) as taking:
            taking.take([TrialResult(trial, "ok", {}) for trial in first])
        assert len(rows.failed()) == 4
    (status,) = Watcher([tmp_path]).look()
    assert (status.state, status.done, status.failed, status.planned) == (DONE, len(first), 0, len(first))


def test_an_interrupt_does_not(url, cloud):
    with at_work(url) as (taking, _):
        cloud.disturb("503", lambda method, path, before: True)
        with pytest.raises(KeyboardInterrupt), taking.committing():
            taking.take([good(0)])
            places.haste.begin()
            raise KeyboardInterrupt
        assert taking.lost() == f"1 finished trial could not be committed, as {url} cannot be reached: it is run again"
        places.haste.end()
        cloud.disturb()
        threading.Event().wait(outage.AGAIN_SECONDS)  # time.sleep does nothing here
    assert load(url, ["trial_id"]).num_rows == 1 and taking.lost() is None


def test_more_than_a_driver_can_hold_is_not_taken_in(url, cloud, monkeypatch):
    monkeypatch.setattr("raylab.results.sink.MOST_FLUSHES", 2)
    with at_work(url) as (taking, _):
        cloud.disturb("503", lambda method, path, before: "trials" in path and method == "PUT" and before < 9)
        taking.take([good(0)])
        assert taking.rows.waiting == 1
        taking.take([good(1)])
        assert taking.rows.waiting == 0
