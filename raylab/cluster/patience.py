"""How long to wait for a sign of life. Time is the driver's own: no two machines' clocks are ever compared."""

from __future__ import annotations

import time
from collections.abc import Callable

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
    twice as long each time it is tried again, so that what only takes longer comes through in the end. What costs more
    than all that has ended well (a model to train, where others have been read from their checkpoints in seconds) may
    be silent for so many times longer, up to a day.
    """

    def __init__(self, minutes: float | None) -> None:
        self._minutes = minutes
        self._longest: float | None = None
        self._dearest = 0.0

    def saw(self, silence: float, cost: float = 0.0) -> None:
        """A silence of so many seconds was broken by a result. cost: of the work (`Experiment.costs`)."""
        self._longest = max(silence, self._longest or 0.0)
        self._dearest = max(cost, self._dearest)

    def seconds(self, attempt: int, cost: float = 0.0) -> float:
        """How long to wait the `attempt`-th time, from 0, for work of that cost."""
        if self._minutes is not None:
            return 60 * self._minutes
        if self._longest is None:
            return 60 * AT_FIRST_MINUTES
        alike = max(60 * AT_LEAST_MINUTES, TIMES_THE_LONGEST * self._longest)
        return max(alike, self._of_dearer(cost)) * 2**attempt

    def _of_dearer(self, cost: float) -> float:
        """How long what has come back lets one wait for what costs more; 0 where it does not."""
        if cost <= self._dearest:
            return 0.0
        if not self._dearest:
            return 60 * AT_FIRST_MINUTES
        return min(60 * AT_FIRST_MINUTES, TIMES_THE_LONGEST * (self._longest or 0.0) * cost / self._dearest)
