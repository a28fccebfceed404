"""What becomes of a task's trials: which have a result, how often they were tried, who failed them.

First result wins: a trial is crossed off when a result of it comes in, from whichever attempt, so that a late one, of
a worker that was given up for lost, is wanted no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from raylab.cluster.outcomes import NOTHING_CAME
from raylab.types import Group, Trial, TrialResult


@dataclass(eq=False)
class Job:
    """Some groups, until each of their trials has a result."""

    groups: Sequence[Group]
    cost: float = 0.0  # of the dearest group, in the experiment's unit: it sets how long all may be silent
    left: dict[Trial, Trial] = field(default_factory=dict)  # ours by equal: what comes back is a copy
    fruitless: int = 0  # attempts in a row that gave nothing
    attempts: int = 0
    spared: bool = False  # whether one was blamed already, and nothing has come since
    avoid: set[str] = field(default_factory=set)  # nodes on which it came to grief
    error: str = NOTHING_CAME

    def __post_init__(self) -> None:
        self.left = {trial: trial for group in self.groups for trial in group}

    def accept(self, results: Iterable[TrialResult]) -> list[TrialResult]:
        """Those that are wanted, about our own trials."""
        wanted = []
        for result in results:
            own = self.left.pop(result.trial, None)
            if own is not None:
                wanted.append(TrialResult(own, result.status, result.values, result.error, result.seconds, result.host))
        return wanted

    def after(self, fruitful: bool, retries: int) -> list[TrialResult]:
        """What an attempt that left something comes to: failed rows for what is not tried again.

        So many attempts in a row that gave nothing are one trial's fault, the first that is left; the others are tried
        once more without it before they fail as well.
        """
        self.attempts += 1
        self.fruitless = 0 if fruitful else self.fruitless + 1
        self.spared = self.spared and not fruitful
        blamed: list[Trial] = []
        if self.fruitless > retries:
            blamed = list(self.left) if self.spared else list(self.left)[:1]
            self.spared, self.fruitless = True, retries
        for trial in blamed:
            del self.left[trial]
        self.groups = [rest for group in self.groups if (rest := tuple(t for t in group if t in self.left))]
        return [TrialResult(trial, "failed", {}, error=self._why()) for trial in blamed]

    def _why(self) -> str:
        return f"{self.error} (tried {self.attempts} times)" if self.attempts > 1 else self.error


@dataclass(eq=False)
class Flight:
    """One attempt at a job. Times are the driver's Watch."""

    job: Job
    seen: float  # when there was last a sign of life; while it is queued, when it was launched
    measured: bool  # whether its worker measures, too
    node: str | None = None  # that it runs on, once it has said so
    began: float = 0.0
    measuring: int = 0  # bundles that are with the eigensolvers
    streaming: bool = True
    trials: int = 0  # left when it began
    silence: float = 0.0  # the longest that ended with something it gave
    paid: float = 0.0  # what it has surely cost: an attempt before it may have left a checkpoint, and this one is quick

    def __post_init__(self) -> None:
        self.trials = len(self.job.left)
        self.paid = 0.0 if self.job.attempts else self.job.cost

    def gave(self, now: float) -> None:
        """Something came of it."""
        self.silence = max(self.silence, now - self.seen)
        self.seen = now

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return not self.streaming and self.measuring == 0

    @property
    def fruitful(self) -> bool:
        """Whether it gave anything."""
        return len(self.job.left) < self.trials
