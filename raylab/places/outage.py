"""What to do while a place is out of reach: keep what is to go there, and try again, though not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from raylab.places.place import UnreachableError

AGAIN_SECONDS = 10.0  # from one try to the next; each may take botocore half a minute of its own
GIVE_UP_SECONDS = 15 * 60.0

T = TypeVar("T")


class Outage:
    """How long a place has been silent, by the clock of who asks. `reason` is what it said last, None while it answers.

    Ask only when it is `due`, and tell how it went: `answered`, or `silent`, which raises in the end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = self._last = 0.0
        self.reason: UnreachableError | None = None

    @property
    def due(self) -> bool:
        """Whether it may be asked (again)."""
        return self.reason is None or self._clock() - self._last >= AGAIN_SECONDS

    def answered(self) -> None:
        """It is over."""
        self.reason = None

    def silent(self, error: UnreachableError) -> None:
        """It begins, or goes on. Raises the error where that has lasted too long."""
        self._last = self._clock()
        if self.reason is None:
            self._since = self._last
        self.reason = error
        if self._last - self._since >= GIVE_UP_SECONDS:
            raise error


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` returns, as soon as its place can be reached. For where nothing else can be done meanwhile."""
    outage = Outage()
    while True:
        try:
            return ask()
        except UnreachableError as error:
            outage.silent(error)
            time.sleep(AGAIN_SECONDS)
