"""Spreads the groups of an experiment over Ray workers, and gives back results in finish order.

A bounded window of tasks is in flight, so that driver memory does not grow with the number of trials. Expensive groups
go first, one a task; cheap ones are worked several in a task and measured by their worker. What was expensive to
evaluate is measured by the eigensolver pool, to which the driver hands references, and sees finished rows only.

Ray retries nothing here. What is lost with a worker, a node or a link, or has been silent for too long, is launched
again by this module, less what has come back already, and elsewhere if there is an elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylab.cluster import nodes
from raylab.cluster.eigen_pool import EigenPool, Measured
from raylab.cluster.fetching import FETCH_SECONDS, fetch, said
from raylab.cluster.flights import Flight, Job
from raylab.cluster.inline import TICK_SECONDS
from raylab.cluster.nodes import Shape
from raylab.cluster.patience import Patience, Watch
from raylab.cluster.room import Room
from raylab.cluster.worker import work
from raylab.errors import UserError, last_line
from raylab.types import Experiment, Group, Trial, TrialResult

if TYPE_CHECKING:
    from raylab.config import ClusterConfig

_LOG = logging.getLogger(__name__)
Costly = tuple[Group, float]  # a group, and what it costs in the experiment's unit
PATROL_SECONDS = 2.0  # between two looks at which nodes are there and who has been silent for too long
BUNDLES_AHEAD = 8  # a worker pauses when so many of its bundles wait to be taken
TASK_SECONDS = 2.0  # of cheap groups that make a task
CHEAP_SECONDS = 0.02  # a trial below it is measured by its worker: to hand it on would take longer
PLACEMENT_MINUTES = 20.0  # for a first worker; a cluster that scales up needs minutes


class Scheduler:
    """Runs pending trials on a Ray cluster that is already up.

    most_workers: at a time; None: as many as the nodes hold, and those that could still be launched.
    """

    _pool: EigenPool  # of the stream that is under way

    def __init__(
        self,
        experiment: Experiment,
        shape: Shape | None = None,
        *,
        eigen_actors: int | None = None,
        gpus_per_eigen_actor: float = 0.0,
        retries: int = 3,
        deadline_minutes: float | None = None,
        most_workers: int | None = None,
    ) -> None:
        self._experiment, self._shape = experiment, shape or Shape()
        self._shared = ray.put(experiment)  # the data once a node, zero-copy; kept where the driver is
        self._watch, self._patience = Watch(), Patience(deadline_minutes)
        self._retries = retries
        self._eigensolver = Shape(cpus=0.0, gpus=gpus_per_eigen_actor)
        self._room = Room(self._shape, eigen_actors, gpus_per_eigen_actor, most_workers)
        self._patience_of_pool = Patience(deadline_minutes)
        self._measure_there = not (self._shape.gpus or gpus_per_eigen_actor)
        self._task: Any = ray.remote(cast(Any, work))
        self._options = {**self._shape.options, "max_retries": 0, "num_returns": "streaming"}
        self._flights: dict[Any, Flight] = {}
        self._streaming = 0
        self._again: deque[Job] = deque()
        self._waiting: deque[Costly] = deque()
        self._pace: float | None = None  # seconds a trial, of late
        self._patrolled = 0.0
        self._placed = 0.0  # when some worker was last known to be at work

    @classmethod
    def of(cls, experiment: Experiment, cluster: ClusterConfig) -> Scheduler:
        """As a config has it. Raises UserError for what no node can hold."""
        return cls(
            experiment,
            Shape.of(cluster),
            eigen_actors=cluster.eigen_actors,
            gpus_per_eigen_actor=cluster.gpus_per_eigen_actor,
            retries=cluster.retries,
            deadline_minutes=cluster.deadline_minutes,
            most_workers=nodes.most_workers(cluster),
        )

    def stream(self, pending: Sequence[Trial]) -> Iterator[list[TrialResult]]:
        """Results as they finish; an empty list now and then, so that the caller can look at the clock.

        Raises UserError where an eigensolver or a worker is not placed within PLACEMENT_MINUTES.
        """
        self._waiting = deque(expensive_first(self._experiment, pending))
        with contextlib.closing(self._new_pool()) as self._pool:
            while True:
                self._watch.look()
                self._launch()
                if not self._flights:
                    return
                batch: list[TrialResult] = []
                for ready in self._wait():
                    known = ready in self._flights
                    batch += self._advance(ready) if known else self._measured(self._pool.collect(ready))
                yield batch + self._patrol() + self._land()

    @property
    def workers(self) -> int:
        """How many there is room for by now."""
        return self._room.workers

    @property
    def at_work(self) -> bool:
        """Whether any worker or eigensolver has begun, and is not over."""
        return self._pool.at_work or any(flight.streaming and flight.node for flight in self._flights.values())

    def _new_pool(self) -> EigenPool:
        measure, gpus = ray.put(self._experiment.measure), self._eigensolver.gpus
        return EigenPool(measure, self._room.actors, gpus, self._retries, self._patience_of_pool)

    def _launch(self) -> None:
        while self._streaming < self._room.window and (self._again or self._waiting):
            job = self._again.popleft() if self._again else self._next_job()
            here = self._measure_there and self._pace is not None and self._pace < CHEAP_SECONDS
            flight = Flight(job, self._watch.time, here)
            how = {"here": here, "first": not job.attempts, "last": job.fruitless >= self._retries}
            elsewhere = self._room.elsewhere(job.avoid)
            place = {"scheduling_strategy": NodeAffinitySchedulingStrategy(elsewhere, soft=True)} if elsewhere else {}
            # Of work that was tried before, each outcome is taken before the next is begun: else a worker that dies
            # takes along an innocent one, which may then be blamed.
            ahead = 1 if job.attempts else BUNDLES_AHEAD
            task = self._task.options(**self._options, **place, _generator_backpressure_num_objects=ahead)
            self._flights[task.remote(self._shared, job.groups, **how)] = flight
            self._streaming += 1

    def _next_job(self) -> Job:
        """One group; of cheap ones several, but no more than leaves every worker something to do."""
        group, cost = self._waiting.popleft()  # no other costs more
        groups = [group]
        if self._pace is None:
            return Job(groups, cost)
        room = TASK_SECONDS / max(self._pace, 1e-6) - len(group)
        most = len(self._waiting) // (2 * self._room.window)
        while self._waiting and len(groups) < most and len(self._waiting[0][0]) <= room:
            groups.append(self._waiting.popleft()[0])
            room -= len(groups[-1])
        return Job(groups, cost)

    def _wait(self) -> list[Any]:
        """What is ready. While the pool is full, what it would be given is not taken: workers pause by themselves."""
        streams = [key for key, flight in self._flights.items() if flight.streaming]
        if self._pool.full:
            for key in streams:
                self._flights[key].seen = self._watch.time
            streams = [key for key in streams if self._flights[key].measured or self._flights[key].node is None]
        watched = streams + self._pool.calls
        first, rest = ray.wait(watched, num_returns=1, timeout=TICK_SECONDS, fetch_local=False)
        if not first or not rest:
            return first
        return first + ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]

    def _advance(self, stream: Any) -> list[TrialResult]:
        """Take what a worker has given: its node, then results, or a bundle to hand on to the pool."""
        flight = self._flights[stream]
        try:
            given = next(stream)
            if given == stream.completed():  # all that came of it is an error
                fetch(given)
            if flight.node is None:
                flight.node = str(fetch(given))
                flight.began = flight.seen = self._watch.time
                return []
            flight.gave(self._watch.time)
            if flight.measured:
                return self._accept(flight, fetch(given))
            flight.measuring += 1
            self._pool.submit(flight, given)
        except StopIteration:
            self._end(flight)
            taken = self._watch.time - flight.began
            pace = taken / flight.trials
            self._pace = pace if self._pace is None else (self._pace + pace) / 2
        except GetTimeoutError:
            self._give_up(stream, f"what it has given could not be fetched within {FETCH_SECONDS:g} s")
        except RayError as error:
            self._end(flight, error)
        return []

    def _accept(self, flight: Flight, results: Sequence[TrialResult]) -> list[TrialResult]:
        """Those of its results that are wanted. By good ones it is known how long such work may be silent."""
        if any(result.status != "failed" for result in results):
            self._patience.saw(flight.silence, flight.paid)
        return flight.job.accept(results)

    def _end(self, flight: Flight, error: RayError | str | None = None) -> None:
        """Nothing more comes of an attempt."""
        flight.streaming = False
        self._streaming -= 1
        if error is not None:
            flight.job.error = said(error)

    def _measured(self, found: Sequence[Measured]) -> list[TrialResult]:
        """What the pool has to say of some bundles."""
        wanted: list[TrialResult] = []
        for flight, results, error in found:
            flight.measuring -= 1
            wanted += self._accept(flight, results)
            if error is not None:
                flight.job.error = said(error)
        return wanted

    def _land(self) -> list[TrialResult]:
        """Take attempts that are over out of the air. What they left is tried again, or fails."""
        failed: list[TrialResult] = []
        for key in [key for key, flight in self._flights.items() if flight.over]:
            flight = self._flights.pop(key)
            if flight.job.left:
                flight.job.avoid.add(flight.node or "")
                failed += flight.job.after(flight.fruitful, self._retries)
            if flight.job.left:
                _LOG.warning(
                    "raylab: %d trials are tried again: %s", len(flight.job.left), last_line(flight.job.error)[:200]
                )
                self._again.append(flight.job)
        return failed

    def _patrol(self) -> list[TrialResult]:
        """Now and then: which nodes are there, who has been silent for too long, is anybody at work at all."""
        now = self._watch.time
        if now - self._patrolled < PATROL_SECONDS:
            return []
        self._patrolled = now
        gone = self._room.look()
        self._require_a_worker(now)
        for stream, flight in list(self._flights.items()):
            if not flight.streaming:
                continue
            if flight.node is None:
                if gone:  # it may have been on its way there, of which nothing would ever be heard
                    self._give_up(stream, "")
            elif flight.node not in self._room.nodes:
                self._give_up(stream, f"node {flight.node[:8]} was lost")
            elif now - flight.seen > (limit := self._patience.seconds(flight.job.fruitless, flight.job.cost)):
                self._give_up(stream, f"nothing came for {limit / 60:.3g} minutes, its deadline")
        return self._measured(self._pool.patrol(now, self._room.actors, self._room.nodes))

    def _give_up(self, stream: Any, why: str) -> None:
        """Stop an attempt; without a reason, it was none."""
        flight = self._flights[stream]
        with contextlib.suppress(RayError, ValueError):
            ray.cancel(stream, force=True)
        if why:
            self._end(flight, why)
            return
        del self._flights[stream]
        self._streaming -= 1
        self._again.appendleft(flight.job)

    def _require_a_worker(self, now: float) -> None:
        """No silent hang where nothing is ever placed."""
        if self.at_work:
            self._placed = now
        elif now - self._placed > 60 * PLACEMENT_MINUTES:
            who = f"eigensolver of {self._eigensolver}" if self._pool.wants_an_actor else f"worker of {self._shape}"
            raise UserError(
                f"No {who} was started within {PLACEMENT_MINUTES:g} minutes: nodes that are there "
                f"have at most {nodes.describe(self._room.nodes.values())}, and are busy or too few; see `ray status`."
            )


def expensive_first(experiment: Experiment, pending: Sequence[Trial]) -> list[Costly]:
    """The groups of some trials as they are to be launched: what begins last must not be what takes longest."""
    groups = experiment.groups(pending)
    return sorted(zip(groups, experiment.costs(groups), strict=True), key=lambda each: -each[1])
