"""What to do while a place is out of reach: keep what is to go there, and try again, though not for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from raylab.places import haste
from raylab.places.place import UnreachableError

_LOG = logging.getLogger(__name__)
AGAIN_SECONDS = 10.0  # from one try to the next; each may take S3 a quarter of a minute
GIVE_UP_SECONDS = 15 * 60.0

T = TypeVar("T")


class Outage:
    """How long a place has been silent, by the clock of who asks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = self._last = 0.0
        self.reason: UnreachableError | None = None  # what it said last; None while it answers

    def ask(self, what: Callable[[], T]) -> T:
        """What it answers. Raises UnreachableError, at once where it was silent a moment ago.

        After an interrupt it is asked whatever it said before, as that is the last time.
        """
        if self.reason and not haste.is_on() and self._clock() - self._last < AGAIN_SECONDS:
            raise self.reason
        try:
            answer = what()
        except UnreachableError as error:
            self._last = self._clock()
            self._since = self._since if self.reason else self._last
            self.reason = error
            raise
        self.reason = None
        return answer

    @property
    def is_long(self) -> bool:
        """Whether there is no hope left."""
        return self.reason is not None and self._last - self._since >= GIVE_UP_SECONDS


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` returns, as soon as its place can be reached; a log says so. For where nothing else can be done."""
    began: float | None = None
    while True:
        try:
            return ask()
        except UnreachableError as error:
            now = time.monotonic()
            if haste.is_on() or (began is not None and now - began >= GIVE_UP_SECONDS):
                raise
            if began is None:
                began = now
                _LOG.warning("raylab: tried again for %.0f minutes: %s", GIVE_UP_SECONDS / 60, error)
            time.sleep(AGAIN_SECONDS)
