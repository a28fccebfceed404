"""Signals to a process that is in C, in a thread, or slow to end: rows are committed, and it ends."""

import signal
import subprocess
import sys
import time

import pytest

FOR_EVER = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # in C, without Python's lock, deaf to signals
SCRIPT = """
import hashlib, sys, threading, time
from raylab import interrupts as limits
from raylab.interrupts import Interrupts, end_without_threads
limits.LIMIT = LIMITED
interrupts = Interrupts(lambda: print("farewell", flush=True))
interrupts.lost = lambda: "7 trials are lost"
def commit():
    print("committing", flush=True)
    time.sleep(COMMIT)
    print("committed", flush=True)
try:
    with interrupts.handled():
        try:
            with interrupts.keeping(commit, FAR_AWAY):
                BODY
        finally:
            AFTER
except KeyboardInterrupt:
    end_without_threads()
    sys.exit(130)
"""


def start(body, after="pass", commit="0", far_away=False, limit=600):
    code = SCRIPT.replace("BODY", f"print('at work', flush=True); {body}").replace("AFTER", after)
    code = code.replace("COMMIT", commit).replace("FAR_AWAY", str(far_away)).replace("LIMITED", str(limit))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "at work\n"
    return process


def ends(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out.split(), err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_inside_a_library_that_does_not_come_back(sent):
    process = start(FOR_EVER)
    time.sleep(0.5)  # until it is inside, on a busy machine too
    process.send_signal(sent)
    assert ends(process) == (130, ["committing", "committed", "farewell"], "")


def test_beside_threads_that_do_not_come_back():
    process = start(f"threading.Thread(target=lambda: {FOR_EVER}).start(); time.sleep(1000)")
    process.send_signal(signal.SIGINT)
    assert ends(process) == (130, ["committing", "committed"], "")


def test_a_second_signal_ends_at_once_what_is_slow_to_end():
    process = start("time.sleep(1000)", after="print('ending', flush=True); time.sleep(1000)")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # a terminal and `uv run` both: one
    assert [process.stdout.readline() for _ in range(3)] == ["committing\n", "committed\n", "ending\n"]
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    code, _, err = ends(process)
    assert code == 130 and "Interrupted again" in err


def test_a_second_signal_does_not_break_off_a_commit():
    process = start("time.sleep(1000)", commit="2.5")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "committing\n"
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    assert ends(process) == (130, ["committed"], "")


def test_a_second_signal_breaks_off_a_commit_to_another_machine():
    """A part there is whole or absent, whenever this process ends."""
    process = start("time.sleep(1000)", commit="1000", far_away=True)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "committing\n"
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    code, out, err = ends(process)
    assert (code, out) == (130, []) and "Interrupted again" in err and "7 trials are lost." in err


@pytest.mark.parametrize("body", ["time.sleep(1000)", FOR_EVER])
def test_an_end_that_asks_another_machine_is_cut_short(body):
    process = start(body, commit="1000", far_away=True, limit=5)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert ends(process) == (130, ["committing", "farewell"], "")


def test_an_end_that_asks_this_machine_is_not():
    process = start("time.sleep(1000)", commit="1.5", limit=0.2)
    process.send_signal(signal.SIGINT)
    assert ends(process) == (130, ["committing", "committed"], "")
