"""How far a run is: a live bar on a terminal, a line now and then where there is none, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raylab import redact
from raylab.results.estimate import Work
from raylab.types import TrialResult

Kind = Literal["auto", "rich", "plain", "none"]


FIRST_SHARE = 50  # of the trials must be done before there is an estimate by their rate
BELIEVED = 0.02  # of a run's time is the weight of the belief that all workers are always at work


@dataclass
class Count:
    """Trials of a run. The rate is that of this run: what earlier runs did took none of its time."""

    total: int = 0
    before: int = 0  # done by earlier runs
    now: int = 0  # done by this run, failed ones too
    failed: int = 0
    workers: int = 0  # 0: not known
    work: Work | None = None
    idle: float = 0.0  # seconds before anybody was at work: Ray and its workers start

    @property
    def done(self) -> int:
        """Finished trials, of all runs."""
        return self.before + self.now

    def rate(self, elapsed: float) -> float:
        """Trials a second."""
        return self.now / elapsed if elapsed > 0 else 0.0

    def remaining(self, elapsed: float) -> float | None:
        """Seconds to go: by the seconds of rows like those to come, else at the rate so far.

        None as long as too little is done to tell (models train first).
        """
        if self.total == self.done:
            return 0.0
        left = self.work.left() if self.work else None
        if self.work and left is not None and self.workers:
            # Seconds of work done a second: the number of workers at first, then more and more what was seen, less what
            # is at work and gives its rows later.
            believed = BELIEVED * (left + self.work.done) / self.workers
            seen = elapsed - self.idle + believed
            if (speed := (self.work.done + self.workers * believed) / (seen or 1)) > 0:
                return left / speed
        if self.now < max(1, (self.total - self.before) // FIRST_SHARE):
            return None
        rate = self.rate(elapsed)
        return (self.total - self.done) / rate if rate else None


class Progress:
    """Progress of a run; a context manager.

    `kind`: "rich" is a live bar, "plain" a line at most every `every` seconds as trials end, and after `silence`
    seconds without any where somebody ticks; "none" is silent, and "auto" is rich on a terminal and plain elsewhere.
    """

    def __init__(
        self,
        kind: Kind = "auto",
        console: Console | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        silence: float = 60.0,
    ) -> None:
        self._console = console or Console()
        self._kind = ("rich" if self._console.is_terminal else "plain") if kind == "auto" else kind
        self._every, self._silence, self._clock = every, silence, clock
        self._count = Count()
        self._began = self._said = clock()
        self._live: Live | None = None
        self._closed = False
        self._doing = ""  # what goes on before the first row

    def start(self, total: int, done: int = 0, workers: int = 0, work: Work | None = None) -> None:
        """Begin: `total` trials are planned, `done` of them were done by earlier runs.

        workers: how many there are, 0 where that is not known; work: what is left of it.
        """
        self._count = Count(total, done, workers=workers, work=work)
        self._began = self._said = self._clock()
        if self._kind == "rich":
            # The bar disappears at the end: what stays on the screen is `close`'s line.
            self._live = Live(console=self._console, get_renderable=self._bar, refresh_per_second=8, transient=True)
            self._live.start()

    def advance(self, result: TrialResult) -> None:
        """One more trial is done."""
        if not self._count.now:
            self._count.idle = max(0.0, self._clock() - self._began - result.seconds)
            self._doing = ""
        self._count.now += 1
        self._count.failed += result.status == "failed"
        if self._count.work:
            self._count.work.learn(result)
        self._say_if_due()

    def set_workers(self, workers: int, at_work: bool = True) -> None:
        """How many there are, where that is known after the start only, and whether any of them has begun."""
        self._count.workers = workers
        if not workers:
            self.doing("no node for workers yet: one is waited for")
        else:
            self.doing("at work" if at_work else "starting")

    def doing(self, what: str) -> None:
        """What goes on before there is a first row: shown until there is one."""
        if what != self._doing and not self._count.now:
            self._doing = what
            if self._kind == "plain":
                self.say(", ".join(filter(None, (what, _workers(self._count.workers)))))

    def tick(self) -> None:
        """Call it now and then while no result comes in: a log that says nothing for long looks dead."""
        if self._kind == "plain" and self._clock() - self._said >= self._silence:
            self._say_now()

    def numbers(self) -> dict[str, Any]:
        """How far it is, as plain data: trials, trials a second, seconds."""
        count, elapsed = self._count, self._clock() - self._began
        return {
            "total": count.total,
            "before": count.before,
            "done": count.done,
            "failed": count.failed,
            "workers": count.workers or None,
            "elapsed": round(elapsed, 1),
            "rate": round(count.rate(elapsed), 4),
            "remaining": count.remaining(elapsed),
        }

    def drop(self, trials: int) -> None:
        """So many trials will not be run after all."""
        self._count.total -= trials

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._kind != "none":
            self._console.print(redact.text(text), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """End the display with one line that stays. May be called twice."""
        if self._live:
            self._live.stop()
            self._live = None
        if self._count.total and not self._closed:
            self.say(self._line(last=True))
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _say_if_due(self) -> None:
        if self._kind == "plain" and self._clock() - self._said >= self._every:
            self._say_now()

    def _say_now(self) -> None:
        self._said = self._clock()
        self.say(self._line())

    def _line(self, last: bool = False) -> str:
        count, elapsed = self._count, self._clock() - self._began
        percent = f"{count.done / count.total:.0%}" if count.total else "-"
        said = [f"{count.done:,}/{count.total:,} trials ({percent})", f"{count.failed} failed" if count.failed else ""]
        said += [_workers(count.workers)] if count.workers and not last else []
        said += [f"{pace(count.rate(elapsed))}, elapsed {duration(elapsed)}"]
        if not last:
            said += [f"ETA {duration(count.remaining(elapsed))}"]
        return ", ".join(filter(None, said))

    def _bar(self) -> Table:
        count, elapsed = self._count, self._clock() - self._began
        bar = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None, None):
            bar.add_column(no_wrap=True, ratio=ratio)
        share = count.done / count.total if count.total else 0.0
        failed = Text(f"{count.failed} failed", style="bold red") if count.failed else Text("")
        bar.add_row(
            Text(f"{share:4.0%}", style="bold"),
            ProgressBar(total=max(count.total, 1), completed=count.done, complete_style="cyan", finished_style="green"),
            Text(f"{count.done:,}/{count.total:,}"),
            failed,
            Text(f"ETA {duration(count.remaining(elapsed))}", style="cyan"),
        )
        told = [f"{duration(elapsed)} elapsed", self._doing or pace(count.rate(elapsed)), _workers(count.workers)]
        below = Text(f"     {', '.join(filter(None, told))}", style="dim")
        both = Table.grid(expand=True)
        both.add_column(no_wrap=True, overflow="ellipsis")
        both.add_row(bar)
        both.add_row(below)
        return both


def duration(seconds: float | None) -> str:
    """A time span to read: 4.2 s, 3 min 05 s, 2 h 07 min; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def pace(rate: float) -> str:
    """A rate to read: 2.3 trials/s, 45.0 trials/min."""
    return f"{rate:,.1f} trials/s" if rate >= 1 or not rate else f"{60 * rate:,.1f} trials/min"


def _workers(number: int) -> str:
    return f"{number} worker{'s' * (number > 1)}" if number else ""
