"""What is still asked of a place far away once the command has been interrupted: little, and not for long.

The end of a run asks one thing after another: rows, logs, the last beat, the lease. Where a place does not answer, each
would wait out its own timeouts, and minutes pass. So from an interrupt on no request begins once SECONDS have gone into
requests, and none at all after the first that finds the place out of reach. What else takes its time, as Ray does to
end, does not count: the last beat is to be sent after it. That is so for the whole process, which is about to end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from raylab.places.place import UnreachableError

SECONDS = 12.0  # with those of a request that begins just before, an end takes less than half a minute
JOIN_SECONDS = 2.0  # for a thread that may be in the midst of a request; it is a daemon and may stay there


class _Haste:
    is_on = False
    spent = 0.0  # seconds
    reason: UnreachableError | None = None  # why nothing is asked any more


_now = _Haste()


def begin() -> None:
    """The command has been interrupted. May be called twice, from any thread."""
    _now.is_on = True


def end() -> None:
    """Of a process that goes on after all, such as a test's."""
    _now.is_on, _now.spent, _now.reason = False, 0.0, None


def is_on() -> bool:
    """Whether the command has been interrupted."""
    return _now.is_on


@contextlib.contextmanager
def asking(url: str) -> Iterator[None]:
    """Around each request to a place. Raises UnreachableError where there is no time left for it."""
    if not _now.is_on:  # what is asked before the interrupt says less of the time after it
        yield
        return
    if _now.reason:
        raise _now.reason
    if _now.spent > SECONDS:
        raise UnreachableError(f"{url} was too slow to be asked for more: run the same command again.")
    began = time.monotonic()
    try:
        yield
    except UnreachableError as error:
        _now.reason = error
        raise
    finally:
        _now.spent += time.monotonic() - began


def join(thread: threading.Thread) -> None:
    """Wait for a daemon to end; in haste not for long."""
    thread.join(JOIN_SECONDS if is_on() else None)
