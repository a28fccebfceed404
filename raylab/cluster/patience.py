"""How long to wait for a sign of life. Time is the driver's own: no two machines' clocks are ever compared."""

from __future__ import annotations

import time
from collections.abc import Callable

FETCH_SECONDS = 60.0  # for results that are there: their node may be cut off before it is known to be
LOOK_SECONDS = 5.0  # more than that between two looks does not count: it was the driver that was away
AT_LEAST_MINUTES = 5.0
TIMES_THE_LONGEST = 10.0
AT_FIRST_MINUTES = 24 * 60.0  # until anything has come back, which may be a day's training


class Watch:
    """Seconds during which the driver has looked at its workers.

    A driver that was stopped, or busy writing, has not seen who was at work meanwhile and must not blame them for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self.time = 0.0

    def look(self) -> float:
        """The time by now."""
        now = self._clock()
        self.time += min(now - self._last, LOOK_SECONDS)
        self._last = now
        return self.time


class Patience:
    """The longest silence that is borne.

    minutes: as a person has it. None: ten times the longest of this run that ended well, at least five minutes, and
    twice as long each time it is tried again, so that what only takes longer comes through in the end.
    """

    def __init__(self, minutes: float | None) -> None:
        self._minutes = minutes
        self._longest: float | None = None

    def saw(self, silence: float) -> None:
        """A silence of so many seconds was broken."""
        self._longest = max(silence, self._longest or 0.0)

    def seconds(self, attempt: int) -> float:
        """How long to wait the `attempt`-th time, from 0."""
        if self._minutes is not None:
            return 60 * self._minutes
        if self._longest is None:
            return 60 * AT_FIRST_MINUTES
        return max(60 * AT_LEAST_MINUTES, TIMES_THE_LONGEST * self._longest) * 2**attempt
