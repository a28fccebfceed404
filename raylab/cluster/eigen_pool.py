"""A pool of actors that turn outcomes into finished results: eigenvalues, power-law fits, metrics.

Weights reach an actor by object reference, from the worker that drew them, never through the driver. Only one that has
started is given something: another may wait for its share of a GPU for ever. An actor that dies, or is silent for too
long, is replaced, and what it was at is measured again.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from raylab.cluster.fetching import fetch
from raylab.cluster.nodes import NOT_THE_HEAD
from raylab.cluster.patience import Patience
from raylab.cluster.worker import Measurer
from raylab.errors import UserError, first_line
from raylab.types import TrialResult

_LOG = logging.getLogger(__name__)
QUEUED_PER_ACTOR = 2  # calls in flight an actor: one at work, one whose arguments are on their way
PLACEMENT_SECONDS = 20 * 60  # for a GPU share; a cluster that scales up needs minutes
BUNDLES_PER_CALL = 16  # enough for a GPU to batch equal shapes, few enough for results to flow

Measured = tuple[Any, list[TrialResult], "RayError | None"]  # tag of a bundle; its results, or why there are none


@dataclass(frozen=True)
class _Job:
    tag: Any
    bundle: Any
    deaths: int = 0  # of actors that were at it
    alone: bool = False


@dataclass(eq=False)
class _Actor:
    handle: Any
    calls: int = 0
    since: float = 0.0  # when it began what it is at
    starting: Any = None  # its node, once it has started, which may take minutes: a node, a GPU share, imports
    node: str | None = None


class EigenPool:
    """Tagged references of bundles in, tagged results out, in finish order.

    measure: a reference of what measures. retries: of a bundle whose actor died.
    """

    def __init__(self, measure: Any, actors: int, gpus_per_actor: float, retries: int, patience: Patience) -> None:
        # No CPU is reserved: the operating system shares the cores between this pool and the evaluation, and
        # neither can starve the other of a slot.
        options = {"num_cpus": 0, "num_gpus": gpus_per_actor, "max_restarts": 0, "label_selector": NOT_THE_HEAD}
        self._class: Any = ray.remote(Measurer).options(**options)
        self._measure, self._retries, self._patience = measure, retries, patience
        self._now, self._wanted = 0.0, actors
        self._actors = [self._new() for _ in range(actors)]
        self._queue: deque[_Job] = deque()
        self._calls: dict[Any, tuple[_Actor, list[_Job]]] = {}
        try:
            if gpus_per_actor:
                _wait_for_placement([actor.starting for actor in self._actors], gpus_per_actor)
        except BaseException:
            self.close()
            raise

    @property
    def full(self) -> bool:
        """Whether more is queued than the next round of calls can take: time for the workers to wait.

        Not while no actor has started: workers that wait might hold the share of a GPU that it waits for.
        """
        ready = self._started
        return bool(ready) and len(self._queue) >= len(ready) * BUNDLES_PER_CALL

    @property
    def calls(self) -> list[Any]:
        """References to wait for: of the calls in flight, and of actors that are starting."""
        return [*self._calls, *(actor.starting for actor in self._actors if actor.starting is not None)]

    @property
    def at_work(self) -> bool:
        """Whether an actor has something to do."""
        return any(actor.calls for actor in self._actors)

    @property
    def wants_an_actor(self) -> bool:
        """Whether something waits to be measured, and no actor has started that could."""
        return bool(self._queue) and not self._started

    @property
    def _started(self) -> list[_Actor]:
        return [actor for actor in self._actors if actor.starting is None]

    def submit(self, tag: Any, bundle: Any) -> None:
        """Queue the reference of a bundle."""
        self._queue.append(_Job(tag, bundle))
        self._feed()

    def collect(self, call: Any) -> list[Measured]:
        """What came of the bundles of a finished call; nothing yet for those that are measured again."""
        if call not in self._calls:
            self._begin(call)
            return []
        actor, jobs = self._calls.pop(call)
        actor.calls -= 1
        try:
            results = fetch(call)
        except RayActorError as error:
            if actor in self._actors:
                self._replace(actor)
            return self._once_more(jobs, error)
        except RayError as error:
            if len(jobs) == 1:
                return [(jobs[0].tag, [], error)]
            # One that cannot be had must not take its neighbours along: each is tried by itself.
            self._queue.extendleft(replace(job, alone=True) for job in reversed(jobs))
            return []
        else:
            self._patience.saw(self._now - actor.since)
            actor.since = self._now
            return [(job.tag, measured, None) for job, measured in zip(jobs, results, strict=True)]
        finally:
            self._feed()

    def patrol(self, now: float, wanted: int, nodes: Collection[str]) -> list[Measured]:
        """Replace actors that are on none of these nodes or have been silent for too long; have `wanted` by now.

        Returns what is given up.
        """
        self._now, self._wanted = now, wanted
        given_up: list[Measured] = []
        for actor in self._started:
            limit = self._patience.seconds(max((job.deaths for job in self._at(actor)), default=0))
            if actor.node is not None and actor.node not in nodes:
                given_up += self._give_up(actor, f"node {actor.node[:8]} was lost")
            elif actor.calls and now - actor.since > limit:
                given_up += self._give_up(actor, f"it was not measured within {limit / 60:.3g} minutes")
        self._actors += [self._new() for _ in range(wanted - len(self._actors))]
        self._feed()
        return given_up

    def close(self) -> None:
        """End the actors: Ray does so by itself where nothing refers to one, of which nobody can be sure."""
        while self._actors:
            self._end(self._actors[0])

    def _give_up(self, actor: _Actor, why: str) -> list[Measured]:
        """Of an actor on a node whose link is cut nothing is ever heard again: its calls are forgotten here."""
        self._replace(actor)
        lost = self._at(actor)
        self._calls = {call: known for call, known in self._calls.items() if known[0] is not actor}
        return self._once_more(lost, RayError(why))

    def _at(self, actor: _Actor) -> list[_Job]:
        """What an actor has been given and has not given back."""
        return [job for of, jobs in self._calls.values() if of is actor for job in jobs]

    def _replace(self, actor: _Actor) -> None:
        self._end(actor)
        if len(self._actors) < self._wanted:
            self._actors.append(self._new())

    def _end(self, actor: _Actor) -> None:
        """One that could not be reached may live, with the share of a GPU that its successor waits for."""
        self._actors.remove(actor)
        with contextlib.suppress(RayError, ValueError):
            ray.kill(actor.handle)

    def _new(self) -> _Actor:
        handle = self._class.remote()
        return _Actor(handle, starting=handle.node.remote())

    def _begin(self, starting: Any) -> None:
        """An actor has started, or died of it."""
        for actor in self._actors:
            if actor.starting == starting:
                with contextlib.suppress(RayError):  # it died: its first call will say so
                    actor.node = fetch(starting)
                actor.starting, actor.since = None, self._now
        self._feed()

    def _once_more(self, jobs: list[_Job], error: RayError) -> list[Measured]:
        """Measure again what an actor died at, each by itself: it may be what it died of. Returns what is given up."""
        again = [replace(job, alone=True, deaths=job.deaths + 1) for job in jobs if job.deaths < self._retries]
        self._queue.extendleft(reversed(again))
        if again:
            _LOG.warning("raylab: %d measurements are tried again: %s", len(again), first_line(error))
        return [(job.tag, [], error) for job in jobs if job.deaths >= self._retries]

    def _feed(self) -> None:
        while self._queue and (started := self._started):
            actor = min(started, key=lambda each: each.calls)
            if actor.calls >= QUEUED_PER_ACTOR:
                return
            jobs = self._next_jobs()
            call = actor.handle.measure.remote(self._measure, *(job.bundle for job in jobs))
            self._calls[call] = (actor, jobs)
            if not actor.calls:
                actor.since = self._now
            actor.calls += 1

    def _next_jobs(self) -> list[_Job]:
        if self._queue[0].alone:
            return [self._queue.popleft()]
        share = min(BUNDLES_PER_CALL, -(-len(self._queue) // len(self._actors)))
        return [self._queue.popleft() for _ in range(share)]


def _wait_for_placement(starting: list[Any], gpus: float) -> None:
    """Let the actors have their GPU share before the workers do: workers that hold it all would wait for them for ever.

    Raises UserError where a share cannot be had.
    """
    ready, waiting = ray.wait(starting, num_returns=len(starting), timeout=PLACEMENT_SECONDS)
    if waiting:
        raise UserError(
            f"{len(waiting)} of {len(starting)} eigensolver actors found no {gpus:g} GPU within {PLACEMENT_SECONDS} s: "
            "lower cluster.gpus_per_eigen_actor or cluster.eigen_actors."
        )
    ray.get(ready)
