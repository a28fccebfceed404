import logging

import pytest

from raylab import places
from raylab.places import outage


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(outage.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def silent_until(seconds, clock):
    def ask():
        if clock[0] < seconds:
            raise places.UnreachableError("s3://x does not answer.")
        return "an answer"

    return ask


def test_what_can_only_wait_does_and_a_log_says_so_once(clock, caplog):
    with caplog.at_level(logging.WARNING):
        assert places.patiently(silent_until(600.0, clock)) == "an answer"
    assert [record.getMessage() for record in caplog.records] == [
        "raylab: tried again for 15 minutes: s3://x does not answer."
    ]


def test_it_does_not_wait_for_ever_nor_after_an_interrupt(clock):
    with pytest.raises(places.UnreachableError):
        places.patiently(silent_until(1e9, clock))
    assert places.GIVE_UP_SECONDS <= clock[0] <= places.GIVE_UP_SECONDS + 2 * outage.AGAIN_SECONDS
    places.haste.begin()
    try:
        began = clock[0]
        with pytest.raises(places.UnreachableError):
            places.patiently(silent_until(1e9, clock))
        assert clock[0] == began
    finally:
        places.haste.end()
