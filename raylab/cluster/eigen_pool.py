"""A pool of actors that turn outcomes into finished results: eigenvalues, power-law fits, metrics.

Weights reach an actor by object reference, from the worker that drew them, never through the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from raylab.errors import UserError
from raylab.types import Experiment, Outcome, TrialResult

QUEUED_PER_ACTOR = 2  # calls in flight an actor: one at work, one whose arguments are on their way
PLACEMENT_SECONDS = 300  # for a GPU share; a cluster that scales up needs minutes
OUTCOMES_PER_CALL = 16  # enough for a GPU to batch equal shapes, few enough for results to flow


class _Measurer:
    def measure(self, experiment: Experiment, *outcomes: Outcome) -> list[TrialResult]:
        return experiment.measure(outcomes)


class EigenPool:
    """Tagged outcome references in, tagged results out, in finish order."""

    def __init__(self, experiment: Any, actors: int, gpus_per_actor: float, retries: int) -> None:
        # No CPU is reserved: the operating system shares the cores between this pool and the evaluation, and
        # neither can starve the other of a slot.
        options = {"num_cpus": 0, "num_gpus": gpus_per_actor, "max_restarts": -1, "max_task_retries": retries}
        self._experiment = experiment
        actor_class: Any = ray.remote(_Measurer)
        self._load = {actor_class.options(**options).remote(): 0 for _ in range(actors)}
        if gpus_per_actor:
            _wait_for_placement(list(self._load), gpus_per_actor)
        self._queue: deque[_Job] = deque()
        self._calls: dict[Any, tuple[Any, list[_Job]]] = {}

    @property
    def full(self) -> bool:
        """Whether more is queued than the next round of calls can take: time for the workers to wait."""
        return len(self._queue) >= len(self._load) * OUTCOMES_PER_CALL

    @property
    def calls(self) -> list[Any]:
        """References of the calls in flight, to wait for."""
        return list(self._calls)

    def submit(self, tag: Any, outcome: Any) -> None:
        """Queue the reference of an outcome."""
        self._queue.append(_Job(tag, outcome))
        self._feed()

    def collect(self, call: Any) -> tuple[list[Any], Sequence[TrialResult]]:
        """The tags and the results of a finished call. Raises MeasureError for an outcome that cannot be measured."""
        actor, jobs = self._calls.pop(call)
        self._load[actor] -= 1
        try:
            return [job.tag for job in jobs], ray.get(call)
        except RayError as error:
            if len(jobs) == 1:
                raise MeasureError(jobs[0].tag) from error
            # One bad outcome must not take its neighbours along: each is tried by itself.
            self._queue.extendleft(replace(job, alone=True) for job in reversed(jobs))
            return [], []
        finally:
            self._feed()

    def _feed(self) -> None:
        while self._queue:
            actor = min(self._load, key=lambda key: self._load[key])
            if self._load[actor] >= QUEUED_PER_ACTOR:
                return
            jobs = self._next_jobs()
            call = actor.measure.remote(self._experiment, *(job.outcome for job in jobs))
            self._calls[call] = (actor, jobs)
            self._load[actor] += 1

    def _next_jobs(self) -> list[_Job]:
        if self._queue[0].alone:
            return [self._queue.popleft()]
        share = min(OUTCOMES_PER_CALL, -(-len(self._queue) // len(self._load)))
        return [self._queue.popleft() for _ in range(share)]


def _wait_for_placement(actors: list[Any], gpus: float) -> None:
    """Let the actors have their GPU share before the workers do: workers that hold it all would wait for them for ever.

    Raises UserError where a share cannot be had.
    """
    ready, waiting = ray.wait(
        [actor.__ray_ready__.remote() for actor in actors], num_returns=len(actors), timeout=PLACEMENT_SECONDS
    )
    if waiting:
        raise UserError(
            f"{len(waiting)} of {len(actors)} eigensolver actors found no {gpus:g} GPU within {PLACEMENT_SECONDS} s: "
            "lower cluster.gpus_per_eigen_actor or cluster.eigen_actors."
        )
    ray.get(ready)


@dataclass(frozen=True)
class _Job:
    tag: Any
    outcome: Any
    alone: bool = False


class MeasureError(Exception):
    """An outcome that could not be measured: its actor died too often, or it could not be had."""

    def __init__(self, tag: Any) -> None:
        super().__init__("an outcome could not be measured")
        self.tag = tag
