"""Ctrl-C and a polite kill: finished rows are kept, and the command ends within seconds, whatever it is doing.

The first signal is a KeyboardInterrupt. Where Python does not come to raise it, because the main thread is inside
LAPACK, a thread that is told by the signal itself commits the rows and ends the process. A second signal ends it at
once, unless rows are being committed.
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
AGAIN = 1.0  # seconds after which a signal is a second one: a terminal and `uv run` may both send the first
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupts:
    """How a command is interrupted. `commit` is called by whoever ends it, at most by one."""

    def __init__(self, farewell: Callable[[], None]) -> None:
        self._farewell = farewell
        self._first: float | None = None
        self._claim = threading.Lock()  # whoever has it ends the command: the main thread, or the one that waits for it
        self._committing = threading.Lock()  # no RLock: the handler runs in the thread that it interrupts
        self._commits: list[Callable[[], None]] = []
        self.last_words: list[Callable[[], None]] = []  # called where the main thread does not come to end its blocks

    @contextlib.contextmanager
    def keeping(self, commit: Callable[[], None]) -> Iterator[None]:
        """`commit` is called when the block ends, however it ends; also where the main thread never notices."""
        self._commits.append(commit)
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
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        """In the main thread, between two steps of Python."""
        now = time.monotonic()
        if self._first is not None:
            if now - self._first >= AGAIN and self._committing.acquire(blocking=False):
                print("\nInterrupted again: ended at once. Committed rows are kept.", file=sys.stderr, flush=True)
                os._exit(EXIT)
            return
        self._first = now
        if not self._claim.acquire(blocking=False):
            time.sleep(3600)  # the other thread is about to end this process
        raise KeyboardInterrupt

    def _wait(self, heard: int) -> None:
        """In a thread: told of each signal by the system, even while the main thread is in a library."""
        while received := os.read(heard, 1):
            if received[0] in _SIGNALS:
                time.sleep(PATIENCE)
                if self._claim.acquire(blocking=False):
                    self._end()
        os.close(heard)

    def _end(self) -> None:
        with self._committing:
            for call in (*reversed(self._commits), *self.last_words):
                with contextlib.suppress(Exception):
                    call()
        self._farewell()
        sys.stdout.flush()
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
