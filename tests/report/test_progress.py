import io

import made_up
from rich.console import Console

from raylab.report.progress import Progress, duration
from raylab.results.estimate import Means, Work
from raylab.types import Trial, TrialResult

OK, FAILED = (TrialResult(made_up.trials(1)[0], status, {}) for status in ("ok", "failed"))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def progress(kind="auto", terminal=False, every=5.0, width=100):
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width)
    return Progress(kind, console, every, clock), clock, out


def test_plain_says_a_line_at_most_every_few_seconds():
    shown, clock, out = progress()
    with shown:
        shown.start(total=100, done=20)
        for _ in range(40):
            clock.now += 0.5
            shown.advance(OK)
        shown.advance(FAILED)
        lines = out.getvalue().splitlines()
        assert len(lines) == 4
        assert lines[-1] == "60/100 trials (60%), 2.0 trials/s, elapsed 20 s, ETA 20 s"
    assert out.getvalue().splitlines()[-1] == "61/100 trials (61%), 1 failed, 2.0 trials/s, elapsed 20 s"


def test_what_earlier_runs_did_does_not_make_this_one_look_fast():
    shown, clock, out = progress(every=1.0)
    with shown:
        shown.start(total=1000, done=990)
        clock.now = 10.0
        shown.advance(OK)
        assert "6.0 trials/min" in out.getvalue() and "ETA 1 min 30 s" in out.getvalue()


def test_what_goes_on_before_the_first_row_is_said_once_each():
    shown, clock, out = progress()
    with shown:
        shown.start(total=10)
        shown.doing("starting Ray")
        for workers, at_work in ((0, False), (2, False), (2, False), (2, True), (2, True)):
            shown.set_workers(workers, at_work)
            shown.tick()
        shown.set_workers(3)
        said = ["starting Ray", "no node for workers yet: one is waited for"]
        said += ["starting, 2 workers", "at work, 2 workers"]
        assert out.getvalue().splitlines() == said
        shown.advance(OK)
        shown.set_workers(4)
        assert out.getvalue().splitlines() == said, "from the first row on its lines say how many there are"
        for _ in range(130):
            clock.now += 1.0
            shown.tick()
        silence = ["1/10 trials (10%), 4 workers, 1.0 trials/min, elapsed 1 min 00 s, ETA 9 min 00 s"]
        assert out.getvalue().splitlines()[4:5] == silence and len(out.getvalue().splitlines()) == 6


def test_a_terminal_says_below_the_bar_what_goes_on_before_the_first_row():
    shown, clock, out = progress(terminal=True)
    with shown:
        shown.start(total=4)
        clock.now = 2.0
        shown.set_workers(2, at_work=False)
        shown._live.refresh()
        assert "2.0 s elapsed, starting, 2 workers" in out.getvalue()
        shown.advance(OK)
        shown._live.refresh()
        assert "2.0 s elapsed, 30.0 trials/min, 2 workers" in out.getvalue()


def test_none_is_silent():
    shown, clock, out = progress("none", terminal=True)
    with shown:
        shown.start(2)
        clock.now = 100.0
        shown.advance(OK)
        shown.say("y")
    assert out.getvalue() == ""


def test_a_terminal_shows_a_live_bar_and_keeps_one_line():
    shown, clock, out = progress(terminal=True)
    with shown:
        shown.start(total=4, done=1)
        clock.now = 2.0
        shown.advance(FAILED)
        shown._live.refresh()
        for word in ("50%", "2/4", "1 failed", "ETA 4.0 s"):
            assert word in out.getvalue()
        shown.say("[red] stays as it is")
    shown.close()
    assert "[red] stays as it is" in out.getvalue()
    assert out.getvalue().splitlines()[-1].endswith("2/4 trials (50%), 1 failed, 30.0 trials/min, elapsed 2.0 s")


def test_nothing_to_do_and_errors_end_the_display():
    shown, _, out = progress(terminal=True)
    try:
        with shown:
            shown.start(0)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert shown._live is None and "nan" not in out.getvalue()


def test_durations():
    expected = {None: "-", 0.04: "0.0 s", 9.96: "10 s", 59.4: "59 s", 185: "3 min 05 s", 7620: "2 h 07 min"}
    assert {seconds: duration(seconds) for seconds in expected} == expected


def test_a_model_that_trains_for_long_before_cheap_rows_does_not_mislead():
    """Two workers, each model 100 s of training and then nine rows of a second: 10 models take 545 s."""
    trials = [Trial("e", "m", m, f"c{m}", "d", layer, "original", 0, 0, "m") for m in range(10)
              for layer in (None, *(f"fc{k}" for k in range(9)))]  # fmt: skip
    shown, clock, _ = progress("none")
    shown.start(100, workers=2, work=Work(Means(), trials))
    assert shown.numbers()["remaining"] is None
    clock.now = 101.0
    for trial in (trials[0], trials[10], trials[1]):  # at the rate of trials: nearly an hour
        shown.advance(TrialResult(trial, "ok", {}, seconds=1.0 if trial.layer else 100.0))
    assert abs(shown.numbers()["remaining"] - 444) < 0.05 * 444
    for at, trial in enumerate(trials[2:10]):
        clock.now = 102.0 + at
        shown.advance(TrialResult(trial, "ok", {}, seconds=1.0))
    assert abs(shown.numbers()["remaining"] - 436) < 0.05 * 436
    assert shown.numbers()["workers"] == 2


def test_the_time_that_workers_take_to_start_does_not_slow_the_rest_down():
    """A minute until the first row, of a second's work; then two workers give two rows a second."""
    trials = [Trial("e", "m", m, f"c{m}", "d", "fc", "original", 0, 0, "m") for m in range(60)]
    shown, clock, _ = progress("none")
    shown.start(60, workers=2, work=Work(Means(), trials))
    for at, trial in enumerate(trials[:4]):
        clock.now = 61.0 + at / 2
        shown.advance(TrialResult(trial, "ok", {}, seconds=1.0))
    assert 20 < shown.numbers()["remaining"] < 40
