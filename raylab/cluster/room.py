"""How much room a cluster has for workers by now, and which nodes have it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection

from raylab.cluster import nodes
from raylab.cluster.nodes import Resources, Shape
from raylab.errors import UserError

WORKERS_PER_ACTOR = 4  # of the eigensolver pool, unless said otherwise


class Room:
    """The nodes, looked at now and then: they join and leave while a run goes on.

    eigen_actors: None: one for every four workers, as they come. Those that take a share of a GPU are as many as at
    the start: later ones would wait for workers that hold it. most: workers at a time, where there is room for more.
    """

    def __init__(
        self,
        shape: Shape,
        eigen_actors: int | None = None,
        gpus_per_eigen_actor: float = 0.0,
        most: int | None = None,
    ) -> None:
        self.nodes: dict[str, Resources] = {}
        self.workers = 0  # that all nodes hold together by now
        self._shape, self._gpus_per_actor, self._most = shape, gpus_per_eigen_actor, most or sys.maxsize
        self._launchable: list[tuple[Resources, int]] = []
        self._turn = itertools.count()
        self.actors = eigen_actors or 1
        self._grows = eigen_actors is None
        self.look()
        self.require()
        self._grows = self._grows and not gpus_per_eigen_actor

    def look(self) -> bool:
        """Which nodes are there by now. Returns whether one of those before is gone."""
        before, self.nodes = self.nodes, nodes.alive()
        if before.keys() != self.nodes.keys():
            self._launchable = nodes.launchable(len(self.nodes), self._shape.resources)
        slots = sum(map(self._shape.slots, self.nodes.values()))
        if self._grows:
            self.actors = max(1, min(slots, self._most) // WORKERS_PER_ACTOR)
        self.workers = min(self._beside_actors(slots), self._most)
        return bool(before.keys() - self.nodes.keys())

    def _beside_actors(self, slots: int) -> int:
        """How many of the slots are left beside the GPU shares that are reserved for eigensolvers."""
        reserved = self.actors * self._gpus_per_actor
        left = sum(node.get("GPU", 0) for node in self.nodes.values()) - reserved
        if reserved and left < 0:
            return 0
        return min(slots, int(left / self._shape.gpus + 1e-9)) if reserved and self._shape.gpus else slots

    @property
    def window(self) -> int:
        """How many tasks to have in flight: those at work, and queued what could still be launched for, or one.

        A queued worker would take the GPU share of an eigensolver that has to be started again: then none is queued.
        """
        queued = sum(self._shape.slots(kind) * count for kind, count in self._launchable)
        return min(self._most, max(1, self.workers + (queued or (0 if self._gpus_per_actor else 1))))

    def elsewhere(self, avoid: Collection[str]) -> str | None:
        """A node that is not to be avoided, each in its turn; None where there is none, or nothing to avoid."""
        others = [name for name, node in self.nodes.items() if name not in avoid and self._shape.slots(node)]
        return others[next(self._turn) % len(others)] if avoid and others else None

    def _what_to_lower(self) -> str:
        """What asks for more than any node has; where each would fit by itself, all that is asked for."""
        takes = {
            "gpus_per_worker": ("gpus", self._shape.gpus),
            "memory_gb_per_worker": ("memory_gb", self._shape.memory_gb),
            "cpus_per_worker": ("cpus", self._shape.cpus),
            "gpus_per_eigen_actor": ("gpus", self._gpus_per_actor),
        }
        kinds = [*self.nodes.values(), *(kind for kind, _ in self._launchable)]
        asked = {key: amount for key, (_, amount) in takes.items() if amount}
        alone = {key: Shape(**{"cpus": 0.0, takes[key][0]: amount}) for key, amount in asked.items()}
        given = {key: amount for key, amount in asked.items() if not any(map(alone[key].slots, kinds))} or asked
        return " or ".join(f"cluster.{key}={amount:g}" for key, amount in given.items())

    def require(self) -> None:
        """Raise UserError where no node can hold a worker, nor one that the autoscaler could launch."""
        kinds = [kind for kind, _ in self._launchable]
        if self.workers > 0 or any(map(self._shape.slots, kinds)):
            return
        actors = f" beside eigensolvers of {self.actors * self._gpus_per_actor:g} GPUs" if self._gpus_per_actor else ""
        more = f", one that the autoscaler can launch {nodes.describe(kinds)}" if kinds else ""
        raise UserError(
            f"No node can hold a worker of {self._shape}{actors}: the largest has {nodes.describe(self.nodes.values())}"
            f"{more}. Lower {self._what_to_lower()}, or take a cluster that has it."
        )
