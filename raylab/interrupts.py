"""Ctrl-C and a polite kill: finished rows are kept, and the command ends within seconds, whatever it is doing.

The first signal is a KeyboardInterrupt. Where Python does not come to raise it, because the main thread is inside
LAPACK, a thread that is told by the signal itself commits the rows and ends the process. Where rows are committed to
another machine, that may not answer: the end takes LIMIT at most. A second signal ends the process at once, unless rows
are being committed to this machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

EXIT = 130
PATIENCE = 3.0  # seconds that the main thread is given to notice
LIMIT = 27.0  # seconds for an end that asks another machine
AGAIN = 1.0  # seconds after which a signal is a second one: a terminal and `uv run` may both send the first
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupts:
    """How a command is interrupted. `commit` is called by whoever ends it, at most by one.

    hurry: told of the first signal, at once, and perhaps twice: what asks other machines is to become impatient.
    """

    def __init__(self, farewell: Callable[[], None], hurry: Callable[[], None] = lambda: None) -> None:
        self._farewell, self._hurry = farewell, hurry
        self._raised = self._far_away = False
        self._claim = threading.Lock()  # whoever has it ends the command: the main thread, or the one that waits for it
        self._committing = threading.Lock()  # no RLock: the handler runs in the thread that it interrupts
        self._commits: list[Callable[[], None]] = []
        self._timers: list[threading.Timer] = []
        self.last_words: list[Callable[[], None]] = []  # called where the main thread does not come to end its blocks
        self.lost: Callable[[], str | None] = lambda: None  # what could not be committed, for a person

    @contextlib.contextmanager
    def keeping(self, commit: Callable[[], None], far_away: bool = False) -> Iterator[None]:
        """`commit` is called when the block ends, however it ends; also where the main thread never notices.

        far_away: to another machine, which may not answer. What it has is whole whenever this process ends.
        """
        self._commits.append(commit)
        self._far_away = self._far_away or far_away
        try:
            yield
        finally:
            with self._committing:
                self._commits.remove(commit)
                commit()

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Signals are handled so in the block. For the main thread."""
        kinds = [kind for kind in _SIGNALS if signal.getsignal(kind) is not signal.SIG_IGN]
        before = {kind: signal.signal(kind, self._interrupt) for kind in kinds}
        heard, told = os.pipe()
        os.set_blocking(told, False)
        earlier = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, args=(heard,), name="raylab-interrupts", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(earlier)
            os.close(told)
            for timer in self._timers:
                timer.cancel()
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        """In the main thread, between two steps of Python: of the first signal. Those after it are for `_wait`."""
        if self._raised:
            return
        self._raised = True
        self._hurry()
        if not self._claim.acquire(blocking=False):
            time.sleep(3600)  # the other thread is about to end this process
        raise KeyboardInterrupt

    def _wait(self, heard: int) -> None:
        """In a thread: told of each signal by the system, even while the main thread is in a library."""
        first = 0.0
        while received := os.read(heard, 1):
            if received[0] not in _SIGNALS:
                continue
            if not first:
                first = time.monotonic()
                self._hurry()
                self._after(PATIENCE, self._end)
                self._after(LIMIT, self._cut_short)
            elif time.monotonic() - first >= AGAIN:
                self._end_at_once()
        os.close(heard)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _end(self) -> None:
        """In place of the main thread, if that has not noticed by now."""
        if not self._claim.acquire(blocking=False):
            return
        with self._committing:
            for call in (*reversed(self._commits), *self.last_words):
                with contextlib.suppress(Exception):
                    call()
        self._leave()

    def _cut_short(self) -> None:
        """Where another machine keeps this one waiting, in a library without limits of its own perhaps."""
        if self._far_away:
            self._leave()

    def _leave(self) -> None:
        self._farewell()
        sys.stdout.flush()
        os._exit(EXIT)

    def _end_at_once(self) -> None:
        if self._committing.acquire(blocking=False) or self._far_away:
            lost = f" {lost}." if (lost := self.lost()) else ""
            print(f"\nInterrupted again: ended at once. Committed rows are kept.{lost}", file=sys.stderr, flush=True)
            os._exit(EXIT)


def end_without_threads() -> None:
    """When this process ends, it does not wait for threads that are in the midst of something."""
    main = threading.main_thread()
    if not any(thread is not main and not thread.daemon for thread in threading.enumerate()):
        return

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT)

    # What concurrent.futures joins its threads by: called before, the last registered first. There is no public way.
    register: Callable[[Callable[[], None]], None] = vars(threading)["_register_atexit"]
    register(leave)
