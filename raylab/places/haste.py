"""What is still asked of a place far away once the command has been interrupted: little, and not for long.

The end of a run asks one thing after another: rows, logs, the last beat, the lease. Where a place does not answer, each
would wait out its own timeouts, and minutes pass. So from an interrupt on no request begins after SECONDS, and none at
all after the first that finds the place out of reach. That is so for the whole process: it is about to end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from raylab.places.place import UnreachableError

SECONDS = 12.0  # with the timeouts of a request that begins just before, the process ends within half a minute
JOIN_SECONDS = 2.0  # for a thread that may be in the midst of a request; it is a daemon and may stay there


class _Haste:
    until: float | None = None  # None: nobody is in haste
    reason: UnreachableError | None = None  # why nothing is asked any more


_now = _Haste()


def begin() -> None:
    """The command has been interrupted. May be called twice, from any thread."""
    if _now.until is None:
        _now.until = time.monotonic() + SECONDS


def end() -> None:
    """Of a process that goes on after all, such as a test's."""
    _now.until = _now.reason = None


def is_on() -> bool:
    """Whether the command has been interrupted."""
    return _now.until is not None


@contextlib.contextmanager
def asking(url: str) -> Iterator[None]:
    """Around each request to a place. Raises UnreachableError where there is no time left for it."""
    until = _now.until
    if until is not None:
        if _now.reason:
            raise _now.reason
        if time.monotonic() > until:
            raise UnreachableError(f"{url} was too slow to be asked for more: run the same command again.")
    try:
        yield
    except UnreachableError as error:
        if until is not None:  # what was asked before the interrupt says less of now
            _now.reason = error
        raise


def join(thread: threading.Thread) -> None:
    """Wait for a daemon to end; in haste not for long."""
    thread.join(JOIN_SECONDS if is_on() else None)
