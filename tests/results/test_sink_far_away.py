"""Rows on S3 (moto's): every trial exactly once, whoever was taken for dead, whatever S3 says."""

import contextlib
import functools
import itertools

import made_up
import pytest

from raylab import places
from raylab.errors import UserError
from raylab.places import lease, remote
from raylab.report import html
from raylab.report.perturbed import Perturbed
from raylab.results import ParquetSink, load, parts, read_run_info, schema, statuses, write_run_info
from raylab.results.query import query
from raylab.types import TrialResult

PLAN = made_up.trials(2)
SCHEMA = schema.schema(made_up.COLUMNS)
NUMBER = itertools.count()


@pytest.fixture
def url(cloud, monkeypatch):
    """Where nobody waits long for the dead, nor for S3."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    monkeypatch.setattr(remote, "Lease", functools.partial(lease.Lease, beat=1e9, expiry=0.2))
    return cloud.bucket(f"results-{next(NUMBER)}") + "/study"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def opened(url, **options):
    return ParquetSink(url, SCHEMA, made_up.PROVENANCE, **options)


def good(at, accuracy=0.5):
    return TrialResult(PLAN[at], "ok", {"accuracy": accuracy})


def bad(at):
    return TrialResult(PLAN[at], "failed", {}, error="boom")


def rows(url):
    table = load(url, ["trial_id", "status", "accuracy"])
    found = {row["trial_id"]: (row["status"], row["accuracy"]) for row in table.to_pylist()}
    assert len(found) == table.num_rows, "a trial is there twice"
    return found


def test_rows_are_kept_read_asked_for_and_tried_again(url):
    with opened(url) as sink:
        write_run_info(url, made_up.run_info(1))
        for result in (good(0), bad(1), bad(2)):
            sink.write(result)
    with opened(url) as sink:
        assert sink.done() == {PLAN[0].id} and sink.retry([PLAN[1].id]) == 1
        sink.write(good(1))
    assert rows(url) == {PLAN[0].id: ("ok", 0.5), PLAN[1].id: ("ok", 0.5), PLAN[2].id: ("failed", None)}
    assert statuses(url) == {trial: status for trial, (status, _) in rows(url).items()}
    assert query(url, "SELECT count(*) n FROM trials WHERE status = 'ok'").to_pylist() == [{"n": 2}]
    assert read_run_info(url)["planned"] == made_up.run_info(1)["planned"]


def test_a_report_is_written_there(url, monkeypatch):
    pictures = Perturbed.pictures
    monkeypatch.setattr(Perturbed, "pictures", lambda view: pictures(view)[:1])  # each takes a second or two
    made_up.folder(url, models=1)
    assert html.write(url) == f"{url}/report.html"
    assert b"<html" in places.at(url).read("report.html")
    assert {name.rpartition(".")[2] for name in (places.at(url) / "figures").names()} == {"png", "svg"}


def test_rows_of_a_driver_that_was_taken_for_dead_do_not_count_twice(url, monkeypatch):
    """It froze, another took over, and it wakes: before its successor commits, and once more after."""
    late = opened(url)
    late.write(good(0))
    late.flush()
    late.write(good(1, accuracy=0.1))
    late.write(bad(2))
    monkeypatch.setattr(lease, "_machine", lambda: "another")
    with opened(url) as heir:
        heir.write(good(1, accuracy=0.9))
        heir.write(good(2, accuracy=0.9))
        heir.write(good(3, accuracy=0.9))
        late.flush()  # nobody has told it: it takes the names that its successor is about to
        assert rows(url) == {
            PLAN[0].id: ("ok", 0.5), PLAN[1].id: ("ok", 0.1), PLAN[2].id: ("failed", None)
        }  # fmt: skip
        heir.flush()
        assert heir.status == {PLAN[at].id: "failed" if at == 2 else "ok" for at in range(4)}
        late.write(good(3, accuracy=0.1))
        with pytest.raises(UserError, match="was taken over by another run"):
            late.flush()
        late.close()
        heir.retry([PLAN[2].id])
        heir.write(good(2, accuracy=0.9))
    assert rows(url) == {PLAN[at].id: ("ok", [0.5, 0.1, 0.9, 0.9][at]) for at in range(4)}


def test_a_number_that_was_given_up_is_not_given_out_again(url, monkeypatch):
    """Else a driver that froze before and wakes after finds its number free."""
    with opened(url) as first:
        first.write(good(0))
        first.write(bad(1))
    monkeypatch.setattr(lease, "_machine", lambda: "another")
    second = opened(url)
    second.retry([PLAN[1].id])
    assert parts.names(url) == ["part-000001.parquet"]
    with opened(url) as third:
        third.write(good(1))
    assert parts.names(url) == ["part-000001.parquet", "part-000003.parquet"]


def test_an_outage_ends_in_one_line_and_loses_nothing_that_was_committed(url, cloud):
    clock = Clock()
    with opened(url, clock=clock) as sink:
        sink.write(good(0))
        sink.flush()
        sink.write(good(1))
        cloud.disturb("503", lambda method, *_: method == "PUT")
        with pytest.raises(UserError, match=r"SlowDown.*wait until S3 answers, and run the same command again"):
            sink.flush()
        asked = cloud.requests.total()
        with pytest.raises(UserError, match="SlowDown"):  # Ctrl-C commits at several places: S3 is asked once
            sink.flush()
        assert cloud.requests.total() == asked
        cloud.disturb()
        assert set(rows(url)) == {PLAN[0].id}
        clock.now = 10
    assert set(rows(url)) == {PLAN[0].id, PLAN[1].id}


@pytest.mark.parametrize("lost", [2, 3])  # of three attempts
def test_a_commit_whose_answer_is_lost_counts_once(url, cloud, lost):
    clock = Clock()
    with opened(url, clock=clock) as sink:
        sink.write(good(0))
        cloud.disturb("lost", lambda method, path, before: method == "PUT" and before < lost)
        with pytest.raises(UserError) if lost == 3 else contextlib.nullcontext():
            sink.flush()
        clock.now = 10
        sink.write(good(1))
    assert len(parts.names(url)) == 2 and set(rows(url)) == {PLAN[0].id, PLAN[1].id}


def test_a_truncated_part_is_named_set_aside_and_redone(url):
    with opened(url, flush_rows=1) as sink:
        sink.write(good(0))
        sink.write(good(1))
    home = parts.trials(url)
    half = home.read("part-000002.parquet")[:400]
    home.replace("part-000002.parquet", lambda file: file.write(half))
    with pytest.raises(
        UserError, match=rf"^{url}/trials/part-000002\.parquet is damaged .*: run the command that wrote it again"
    ):
        load(url)
    with opened(url) as sink:
        assert len(sink.set_aside) == 1 and sink.done() == {PLAN[0].id}
        sink.write(good(1))
    assert set(rows(url)) == {PLAN[0].id, PLAN[1].id}
    assert (places.at(url) / "damaged").read("part-000002.parquet") == half


def test_rows_wait_while_s3_is_out_of_reach_and_are_committed_when_it_answers(url, cloud):
    clock = Clock()
    with opened(url, flush_seconds=2, clock=clock) as sink:
        sink.write(good(0))
        sink.flush()
        cloud.disturb("503", lambda *_: True)
        clock.now = 2
        sink.write(good(1))
        clock.now = 4
        sink.tick()
        assert "SlowDown" in sink.outage and sink.waiting == 1
        asked = cloud.requests.total()
        clock.now = 13  # the folder is not asked at each tick
        sink.write(bad(2))
        assert cloud.requests.total() == asked and not sink.commit()
        clock.now = 14
        sink.tick()
        assert cloud.requests.total() > asked and sink.outage
        cloud.disturb()
        assert set(rows(url)) == {PLAN[0].id}
        clock.now = 24
        sink.tick()
        assert sink.outage is None and sink.waiting == 0
        assert set(rows(url)) == {PLAN[0].id, PLAN[1].id, PLAN[2].id}


def test_an_outage_is_not_waited_out_for_ever(url, cloud):
    clock = Clock()
    with opened(url, flush_rows=1, clock=clock) as sink:
        cloud.disturb("500", lambda *_: True)
        sink.write(good(0))
        clock.now = 890
        assert not sink.commit()
        clock.now = 901
        with pytest.raises(UserError, match="wait until S3 answers, and run the same command again"):
            sink.tick()
        cloud.disturb()
        clock.now = 911
    assert set(rows(url)) == {PLAN[0].id}


def test_what_is_no_outage_ends_the_run_at_once(url, cloud):
    with opened(url, flush_rows=1) as sink:
        cloud.disturb("refused", lambda *_: True)
        with pytest.raises(UserError, match="check the credentials"):
            sink.write(good(0))
        cloud.disturb()
    assert set(rows(url)) == {PLAN[0].id}
