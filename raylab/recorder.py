"""What a driver does with a result: a row, the screen, its worker's log, the beat of a heart, metrics, a tracker."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from raylab import places
from raylab.config import Config
from raylab.errors import LOG_OF, LOGS, LOGS_OF
from raylab.interrupts import Interrupts
from raylab.report import progress, tracking
from raylab.results import heartbeat, prometheus
from raylab.results.estimate import Work
from raylab.results.logbook import Logbook
from raylab.results.sink import ParquetSink
from raylab.types import Trial, TrialResult

LOOK_SECONDS = 1.0  # while rows wait for a place that is out of reach

Metered = Callable[[TrialResult], None]


class Recorder:
    """Takes the results of a run on the driver: of the trials that are `pending`. `open_recorder` makes one."""

    def __init__(
        self,
        rows: ParquetSink,
        pending: Sequence[Trial],
        display: progress.Progress,
        book: Logbook,
        tracker: tracking.Tracker,
        interrupts: Interrupts,
    ) -> None:
        self.rows, self.pending, self.display, self.book = rows, pending, display, book
        self.first_error: str | None = None
        self.meter: Metered | None = None  # where Ray is up: its own metrics too
        self.heart_outage: Callable[[], str | None] = lambda: None  # heard while no rows come, as workers wait too
        self._tracker, self._interrupts = tracker, interrupts
        self._counts: Counter[prometheus.Labels] = Counter()
        self._seconds: dict[prometheus.Labels, float] = defaultdict(float)
        self._last: dict[str, Any] = {}
        self._in_outage = False

    def take(self, results: Sequence[TrialResult]) -> None:
        """More results. One of a trial that has a row already changes nothing."""
        for result in results:
            if result.trial.id not in self.rows.status:
                self._take(self.rows.write(_with_place(result)))
        self.tick()

    def tick(self) -> None:
        """Commit rows that are due. Call it now and then while no result comes in."""
        self.rows.tick()
        self._say_outage()
        if self.rows.is_full:
            self._commit()
        self.display.tick()
        self._tracker.progress(self.display.numbers)

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Rows are committed when the block ends, before whatever is around it, such as Ray, takes its time to end.

        If it ends well, that waits for a place that is out of reach; after an interrupt it is tried once.
        """
        far_away = not isinstance(self.rows.folder, places.Folder)
        with self._interrupts.keeping(self._commit_once, far_away):
            yield
            self._commit()

    def fail(self, error: str) -> None:
        """An error that has no row."""
        self.first_error = self.first_error or error

    def beat(self) -> dict[str, Any]:
        """What the next beat says; metrics.prom and the logs are brought up to date with it."""
        numbers = self.display.numbers()
        self.book.send()
        prometheus.write(self.rows.folder, dict(self._counts), dict(self._seconds), numbers)
        return {**numbers, **self._last}

    def lost(self) -> str | None:
        """For who ends without them: how many finished trials have no row where rows belong."""
        waiting, folder = self.rows.waiting, self.rows.folder
        if not waiting:
            return None
        why = f", as {folder} cannot be reached" if self.rows.outage else ""
        trials, they = ("trials", "they are") if waiting > 1 else ("trial", "it is")
        return f"{waiting:,} finished {trials} could not be committed{why}: {they} run again"

    def _commit_once(self) -> None:
        """As the block ends. After an interrupt rows that cannot be committed are no error of their own: see `lost`."""
        try:
            self.rows.flush()
        except places.UnreachableError:
            if not places.haste.is_on():
                raise

    def _commit(self) -> None:
        while not self.rows.commit():
            self._say_outage()
            time.sleep(LOOK_SECONDS)
        self._say_outage()

    def _say_outage(self) -> None:
        """When rows begin to wait for their place, and when it answers again."""
        reason = self.rows.outage or self.heart_outage()
        if reason and not self._in_outage:
            minutes = round(places.GIVE_UP_SECONDS / 60)
            self.display.say(f"{reason}\nWork goes on and rows wait here; tried again for {minutes} minutes.")
        if self._in_outage and not reason:
            self.display.say(f"{self.rows.folder} answers again: no row is lost.")
        self._in_outage = bool(reason)

    def _take(self, result: TrialResult) -> None:
        self.display.advance(result)
        labels = prometheus.labels(result)
        self._counts[labels] += 1
        self._seconds[labels] += result.seconds
        self._last["last_row"] = {"at": _now(), "trial": _words(result.trial), "status": result.status}
        if self.meter:
            self.meter(result)
        if result.status == "failed":
            error = result.error or "no reason given"
            self.fail(error)
            self.book.failed(result)
            self._last["last_error"] = {"at": _now(), "trial": _words(result.trial), "error": error}


@contextmanager
def open_recorder(
    config: Config,
    info: dict[str, Any],
    rows: ParquetSink,
    planned: Sequence[Trial],
    tracker: tracking.Tracker,
    interrupts: Interrupts,
) -> Iterator[Recorder]:
    """A recorder while its block lasts. Rows are committed before anything else ends: an interrupt must not cost them.

    planned: the trials that are known beforehand; of a search none are, and `info` says how many there will be.
    """
    done = rows.done()
    pending = [trial for trial in planned if trial.id not in done]
    about = {"command": info["command"], "started_at": info["started_at"], **_others(rows, planned)}
    with progress.Progress(cast(progress.Kind, config.progress)) as display:
        recorder = Recorder(rows, pending, display, Logbook(rows.folder), tracker, interrupts)
        before = len(planned) - len(pending) if planned else len(done)
        display.start(info["planned"], done=before, work=Work(rows.means, pending) if pending else None)
        heart = heartbeat.Heart(rows.folder, lambda: {**about, **recorder.beat()})
        recorder.heart_outage = lambda: heart.outage
        interrupts.last_words.append(heart.interrupt)
        interrupts.lost = recorder.lost
        with heart, recorder.book.of_this_process(), recorder.committing():
            yield recorder


def _others(rows: ParquetSink, planned: Sequence[Trial]) -> dict[str, int]:
    """How many rows there are of trials that only other commands have: that did not fail, and that did."""
    others = rows.status.keys() - {trial.id for trial in planned} if planned else set[str]()
    failed = sum(rows.status[trial] == "failed" for trial in others)
    return {"others": len(others) - failed, "others_failed": failed}


def _with_place(result: TrialResult) -> TrialResult:
    """A worker that was lost could not say where its log is."""
    error = result.error or ""
    if result.status != "failed" or LOG_OF in error or "\n" not in error.strip():
        return result
    return replace(result, error=f"{error.rstrip()}\n{LOGS_OF}{LOGS}/\n")


def _words(trial: Trial) -> str:
    layer = trial.layer or "whole model"
    draw = f" {trial.draw}" if trial.draw else ""
    return f"{trial.model} {trial.replicate}, {layer}, {trial.perturbation}{draw}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
