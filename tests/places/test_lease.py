"""Who may write, without locks and without clocks that agree."""

import functools
import subprocess
import sys
import threading
import time

import pytest

from raylab import places
from raylab.errors import UserError
from raylab.places import lease, remote
from raylab.places.lease import Lease
from tests.places import streams


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


@pytest.fixture
def undecided(tmp_path, monkeypatch):
    """A place where the last to write a name has it, as on hdfs://."""
    monkeypatch.setattr(remote, "Lease", functools.partial(Lease, beat=0.05, expiry=2.0, sure=0.5))
    return places.at(f"streams://{tmp_path}/there")


def begun(place, found):
    try:
        found.append(place.lock())
    except UserError as error:
        found.append(error)


def test_of_two_that_begin_at_once_where_the_last_wins_one_begins(undecided, monkeypatch):
    both = threading.Barrier(2)  # each has seen that the name is free before either takes it
    monkeypatch.setattr(streams, "before_move", lambda path: path.endswith(".lease") and both.wait(60))
    found = []
    threads = [threading.Thread(target=begun, args=[undecided, found]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [each for each in found if isinstance(each, UserError)]
    (held,) = [each for each in found if not isinstance(each, UserError)]
    assert len(errors) == 1 and "is being written by another run" in str(errors[0])
    held.check(now=True)
    held.release()
    monkeypatch.setattr(streams, "before_move", lambda path: None)
    undecided.lock().release()


def test_who_takes_a_name_late_where_the_last_wins_does_not_begin_and_ends_nobody(undecided, monkeypatch):
    seen, begins = threading.Event(), threading.Event()

    def held_back(path):
        if path.endswith(".lease") and threading.current_thread() is late:
            seen.set()
            begins.wait(60)

    monkeypatch.setattr(streams, "before_move", held_back)
    found = []
    late = threading.Thread(target=begun, args=[undecided, found])
    late.start()
    assert seen.wait(60)
    first = undecided.lock()
    begins.set()
    late.join()
    assert "is being written by another run" in str(found[0])
    first.check(now=True)
    monkeypatch.setattr(lease, "_dead", lambda holder: True)  # the late one, whose name the lease has now
    with pytest.raises(UserError, match="is being written by another run"):
        undecided.lock()
    first.release()


def test_two_that_hold_a_lease_where_the_last_wins_learn_of_it(undecided):
    """Should both have been silent for so long as they began."""
    one = Lease(undecided / "lock", "there", beat=1e9, decides=False, sure=0)
    other = {"beat": 1, "state": "alive", "number": 0, "token": "another"}
    lease._write(undecided / "lock", "000001.beat", other, new=False)
    with pytest.raises(UserError, match="was taken over by another run"):
        one.check()
