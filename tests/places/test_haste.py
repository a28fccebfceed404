"""Ctrl-C while S3 (moto's) is out of reach: it is asked once more, then by nobody; the command ends, and says what."""

import itertools
import signal
from types import SimpleNamespace

import pytest

from raylab import places, session
from raylab.places import haste, s3_client
from raylab.results import ParquetSink, load, schema
from raylab.results.heartbeat import Heart
from raylab.results.logbook import Logbook
from raylab.types import TrialResult
from tests import made_up

PLAN = made_up.trials(1)
NUMBER = itertools.count()


@pytest.fixture
def url(cloud, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    s3_client.forget()
    yield f"{cloud.bucket(f'haste-{next(NUMBER)}')}/study"
    haste.end()
    s3_client.forget()


def opened(url):
    return ParquetSink(url, schema.schema(made_up.COLUMNS), made_up.PROVENANCE)


def test_after_the_first_silence_nothing_is_asked_any_more(url, cloud):
    book = Logbook(url)
    with Heart(url, lambda: book.send() or {}, every=1e9), opened(url) as rows:
        rows.write(TrialResult(PLAN[0], "ok", {"accuracy": 0.5}))
        book.write("host-1", ["a line"])
        cloud.disturb("503", lambda *_: True)
        haste.begin()
        with pytest.raises(places.UnreachableError):
            rows.flush()
        asked = cloud.requests.total()
        assert asked == 3  # attempts of one request
        with pytest.raises(places.UnreachableError):
            rows.close()
        rows._closed = True
    assert cloud.requests.total() == asked


def test_it_is_asked_once_even_where_it_was_silent_a_moment_ago(url, cloud):
    with opened(url) as rows:
        rows.write(TrialResult(PLAN[0], "ok", {"accuracy": 0.5}))
        cloud.disturb("503", lambda *_: True)
        assert not rows.commit()
        cloud.disturb()
        assert not rows.commit()
        haste.begin()
        assert rows.commit()
    assert load(url, ["trial_id"]).num_rows == 1


def test_a_place_that_is_slow_is_not_asked_for_ever(url, cloud, monkeypatch):
    cloud.disturb()
    monkeypatch.setattr(haste, "SECONDS", -1.0)
    haste.begin()
    with pytest.raises(places.UnreachableError, match="was too slow"):
        places.at(url).names()
    assert cloud.requests.total() == 0


def test_the_client_is_less_patient_and_finds_no_credentials_anew(url):
    usual = s3_client.client()
    haste.begin()
    hurried = s3_client.client()
    limits = [(made.meta.config.connect_timeout, made.meta.config.read_timeout) for made in (usual, hurried)]
    assert limits == [(5, 15), (3, 8)]
    assert usual._request_signer._credentials is hurried._request_signer._credentials
    haste.end()
    assert s3_client.client() is usual


@pytest.mark.parametrize("kind", ["503", "500"])
def test_what_has_failed_for_long_is_not_tried_again(url, cloud, monkeypatch, kind):
    ticks = itertools.count(step=4.0)
    monkeypatch.setattr(s3_client, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "20")
    s3_client.forget()
    cloud.disturb(kind, lambda *_: True)
    with pytest.raises(places.UnreachableError):
        places.at(url).read("a")
    assert cloud.requests["GET"] == 3  # seconds 0, 4, 8, and after the third it is 12


def test_a_command_ends_as_interrupted_and_says_what_is_lost(url, cloud, capsys, monkeypatch):
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)  # by `uv run`, which the command would begin with

    def go(overrides, extra, typed, interrupts):
        with opened(url) as rows:
            rows.write(TrialResult(PLAN[0], "ok", {"accuracy": 0.5}))
            interrupts.lost = lambda: f"{rows.waiting} trial is lost"
            cloud.disturb("503", lambda *_: True)
            signal.raise_signal(signal.SIGINT)
        return 0

    assert session.main("raylab.run", ["results=x"], lambda: "", go) == session.EXIT_INTERRUPTED
    assert capsys.readouterr().err.splitlines()[1:] == [
        "Interrupted. 1 trial is lost. All others are kept; the same command goes on from here:",
        "  python -m raylab.run results=x",
    ]
    assert not haste.is_on()


def test_a_command_that_gives_up_says_what_is_lost(capsys):
    def go(overrides, extra, typed, interrupts):
        interrupts.lost = lambda: "7 trials are lost"
        raise places.UnreachableError("S3 has been silent for long.")

    assert session.main("raylab.run", [], lambda: "", go) == session.EXIT_BAD_INPUT
    assert capsys.readouterr().err == "raylab: S3 has been silent for long.\nraylab: 7 trials are lost.\n"
