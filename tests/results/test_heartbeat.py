import json
import subprocess
import sys
import threading
import time

import pytest

from raylab import places
from raylab.results import heartbeat

BEATS = """
import sys, time
from raylab.results.heartbeat import Heart
with Heart(sys.argv[1], lambda: {"done": 3}, every=0.1):
    print("beats", flush=True)
    time.sleep(60)
"""


def alive(*folders):
    return list(heartbeat.alive(map(places.at, folders)).values())


def test_a_driver_lives_as_long_as_its_beat_changes(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", BEATS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    assert alive(tmp_path) == [True]
    process.kill()
    process.communicate()
    kept = heartbeat.read(tmp_path)
    assert (kept["state"], kept["done"]) == ("running", 3)
    assert alive(tmp_path, tmp_path / "nowhere") == [False, False]


def test_a_beat_that_cannot_be_told_is_not_the_last(tmp_path):
    told = iter([{}, ZeroDivisionError(), {"done": 4}])

    def says():
        if isinstance(what := next(told, {"done": 4}), Exception):
            raise what
        return what

    with heartbeat.Heart(tmp_path, says, every=0.01):
        deadline = time.monotonic() + 10
        while heartbeat.read(tmp_path).get("done") != 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_place_that_is_out_of_reach_is_no_secret(tmp_path):
    away = threading.Event()

    def says():
        if away.is_set():
            raise places.UnreachableError("s3://x is silent.")
        return {}

    def until(outage):
        deadline = time.monotonic() + 10
        while heart.outage != outage:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with heartbeat.Heart(tmp_path, says, every=0.01) as heart:
        assert heart.outage is None
        away.set()
        until("s3://x is silent.")
        away.clear()
        until(None)


@pytest.mark.parametrize(
    ("error", "state"), [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (OSError("full"), "crashed")]
)
def test_the_last_beat_says_how_it_ended(tmp_path, error, state):
    try:
        with heartbeat.Heart(tmp_path, dict):
            if error:
                raise error
    except (KeyboardInterrupt, OSError):
        pass
    assert heartbeat.read(tmp_path)["state"] == state
    began = time.monotonic()
    assert alive(tmp_path) == [False] and time.monotonic() - began < heartbeat.EVERY


def test_numbers_go_on_from_driver_to_driver_and_no_clock_is_read(tmp_path):
    for _ in range(2):
        with heartbeat.Heart(tmp_path, dict):
            pass
    assert heartbeat.read(tmp_path)["beat"] == 4
    (tmp_path / heartbeat.FILE).write_text("half a fi")
    assert heartbeat.read(tmp_path) == {}
    beat = {"beat": 7, "every": 0.01, "state": "running", "at": "2099-01-01"}
    (tmp_path / heartbeat.FILE).write_text(json.dumps(beat))
    assert alive(tmp_path) == [False]
