"""Spreads the groups of an experiment over Ray workers, and gives back results in finish order.

A bounded window of groups is in flight, so that driver memory does not grow with the number of trials. A
worker streams the outcomes of its group; the driver hands their references on to the eigensolver pool and
sees finished rows only.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from raylab.cluster.eigen_pool import EigenPool, MeasureError
from raylab.types import Experiment, Group, Outcome, Trial, TrialResult

TICK_SECONDS = 0.5  # at most so long between two looks at the clock, the sink and Ctrl-C
OUTCOMES_AHEAD = 8  # a worker pauses when so many of its outcomes wait to be measured


@dataclass
class _Flight:
    """A group at work."""

    remaining: dict[str, Trial]
    measuring: int = 0
    streaming: bool = True
    error: str = "the worker ended without a result for this trial"

    @property
    def over(self) -> bool:
        return not self.streaming and self.measuring == 0

    def accept(self, result: TrialResult) -> bool:
        """Whether the result is wanted: a retried task may give one twice."""
        return self.remaining.pop(result.trial.id, None) is not None

    def lost(self) -> list[TrialResult]:
        """A failed row for each trial that nothing came back for."""
        return [TrialResult(trial, "failed", {}, error=self.error) for trial in self.remaining.values()]


class Scheduler:
    """Runs pending trials on a Ray cluster that is already up."""

    def __init__(
        self,
        experiment: Experiment,
        *,
        window: int,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
        eigen_actors: int = 1,
        gpus_per_eigen_actor: float = 0.0,
        retries: int = 3,
    ) -> None:
        self._groups_of = experiment.groups
        self._experiment = ray.put(experiment)  # the data once a node, zero-copy
        self._window = window
        self._pool = EigenPool(self._experiment, eigen_actors, gpus_per_eigen_actor, retries)
        self._work = ray.remote(_work).options(
            num_cpus=cpus_per_worker,
            num_gpus=gpus_per_worker,
            max_retries=retries,
            num_returns="streaming",
            _generator_backpressure_num_objects=OUTCOMES_AHEAD,
        )
        self._flights: dict[Any, _Flight] = {}

    def stream(self, pending: Sequence[Trial]) -> Iterator[list[TrialResult]]:
        """Results as they finish; an empty list now and then, so that the caller can look at the clock."""
        waiting = iter(self._groups_of(pending))
        while True:
            self._launch(waiting)
            if not self._flights and not self._pool.calls:
                return
            batch: list[TrialResult] = []
            for ready in self._wait():
                if ready in self._flights:
                    self._advance(ready)
                else:
                    batch += self._finish(ready)
            yield batch + self._land()

    def _launch(self, waiting: Iterator[Group]) -> None:
        while sum(flight.streaming for flight in self._flights.values()) < self._window:
            group = next(waiting, None)
            if group is None:
                return
            flight = _Flight({trial.id: trial for trial in group})
            self._flights[self._work.remote(self._experiment, group)] = flight

    def _wait(self) -> list[Any]:
        # While the pool is full the generators are not looked at, and their workers pause by themselves.
        streams = [] if self._pool.full else [key for key, flight in self._flights.items() if flight.streaming]
        watched = streams + self._pool.calls
        first, rest = ray.wait(watched, num_returns=1, timeout=TICK_SECONDS, fetch_local=False)
        if not first or not rest:
            return first
        return first + ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]

    def _advance(self, stream: Any) -> None:
        """Hand the next outcome of a worker on to the pool."""
        flight = self._flights[stream]
        try:
            outcome = next(stream)
        except StopIteration:
            flight.streaming = False
        except RayError:
            flight.streaming = False
            flight.error = traceback.format_exc(limit=0)
        else:
            flight.measuring += 1
            self._pool.submit(flight, outcome)

    def _finish(self, call: Any) -> list[TrialResult]:
        """The results of a call to the pool."""
        try:
            flights, results = self._pool.collect(call)
        except MeasureError as error:
            error.tag.measuring -= 1
            error.tag.error = str(error.__cause__)
            return []
        wanted = []
        for flight, result in zip(flights, results, strict=True):
            flight.measuring -= 1
            if flight.accept(result):
                wanted.append(result)
        return wanted

    def _land(self) -> list[TrialResult]:
        """Take groups that are over out of the air."""
        over = [key for key, flight in self._flights.items() if flight.over]
        return [result for key in over for result in self._flights.pop(key).lost()]


def _work(experiment: Experiment, group: Group) -> Iterator[Outcome]:
    # Through a generator of our own: Ray sends into it, and another kind of iterator cannot be sent to.
    yield from (outcome for outcome in experiment.run(group))
