"""Who may write, without locks and without clocks that agree."""

import subprocess
import sys
import time

import pytest

from raylab import places
from raylab.errors import UserError
from raylab.places import lease
from raylab.places.lease import Lease


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where leases lie. Nobody asks what time of day it is: two machines need not agree."""
    monkeypatch.setattr(time, "time", None)
    return places.at(tmp_path / "lock")


def taken(home, beat=0.05, expiry=1.0):
    return Lease(home, "s3://bucket/results", beat, expiry)


def on_another_machine(monkeypatch):
    monkeypatch.setattr(lease, "_machine", lambda: "another")


def test_a_living_owner_keeps_others_out_and_lets_them_in_at_once_when_it_is_done(home, monkeypatch):
    first = taken(home)
    on_another_machine(monkeypatch)
    for _ in range(2):
        with pytest.raises(UserError, match=r"^s3://bucket/results is being written by another run \(pid \d+ on"):
            taken(home, expiry=30)
    first.check(now=True)
    first.release()
    first.release()
    second = taken(home, expiry=1e9)  # which it does not wait for
    second.release()
    assert len(home.names()) == 2


def test_an_owner_that_is_silent_is_succeeded_and_learns_of_it(home, monkeypatch):
    frozen = taken(home, beat=1e9)
    frozen.remember(7)
    on_another_machine(monkeypatch)
    heir = taken(home)
    assert heir.number == 7
    frozen.check()  # does not know it yet
    with pytest.raises(UserError, match=r"was taken over by another run \(pid \d+ on .*\), which goes on") as caught:
        frozen.check(now=True)
    assert "\n" not in str(caught.value)
    frozen.release()
    heir.check(now=True)
    heir.release()


def test_a_silent_owner_that_beats_again_learns_of_its_successor_by_itself(home, monkeypatch):
    late = taken(home, beat=1.2, expiry=0.2)
    on_another_machine(monkeypatch)
    heir = taken(home, expiry=0.2)
    with pytest.raises(UserError, match="was taken over"):
        for _ in range(100):
            time.sleep(0.05)
            late.check()
    heir.release()


def test_of_two_that_find_no_owner_one_begins(home, monkeypatch):
    monkeypatch.setattr(lease, "_newest", lambda home: 0)
    taken(home, beat=1e9)
    with pytest.raises(UserError, match="is being written by another run"):
        taken(home)


def test_nobody_waits_for_a_process_of_this_machine_that_is_gone(home):
    code = "import sys; from raylab import places; from raylab.places.lease import Lease; import os\n"
    code += "Lease(places.at(sys.argv[1]), 'x'); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(home)], check=False)
    assert len(home.names()) == 2
    taken(home, expiry=1e9).release()
