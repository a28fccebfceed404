"""What the nodes of a cluster can hold: those that are there, and those that its autoscaler can still launch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from raylab.config import ClusterConfig

GIB = 1024**3
PRIVATE = "raylab_private"  # resource that marks a Ray started for one run alone: "auto" would find and join it
HEAD = {"raylab": "head"}  # label of a head that is kept free of work: cluster.yaml and conf/ray_up give it
NOT_THE_HEAD = {key: f"!{label}" for key, label in HEAD.items()}  # what asks for nothing would be put there
# Where `ray up` leaves the configuration of the autoscaler on the head, which drivers run on.
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
MOST_SLOTS = 10_000  # of a node that sets no limit

Resources = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a worker takes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float = 0.0  # GiB

    @classmethod
    def of(cls, cluster: ClusterConfig) -> Shape:
        """As a config has it."""
        return cls(cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker, memory_gb=cluster.memory_gb_per_worker)

    def slots(self, resources: Resources) -> int:
        """How many a node with these resources holds."""
        most = [resources.get(name, 0) / amount for name, amount in self.resources.items() if amount]
        return int(min([*most, MOST_SLOTS]) + 1e-9)

    @property
    def resources(self) -> Resources:
        """As a node's are counted."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_gb * GIB}

    @property
    def options(self) -> dict[str, Any]:
        """As Ray's options of a task. Memory is what is set aside: Ray does not hold anybody to it."""
        memory = {"memory": int(self.memory_gb * GIB)} if self.memory_gb else {}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **memory}

    def __str__(self) -> str:
        parts = [_amount(self.cpus, "CPU"), _amount(self.gpus, "GPU")]
        return ", ".join([*parts, f"{self.memory_gb:g} GiB"] if self.memory_gb else parts)


def most_workers(cluster: ClusterConfig) -> int | None:
    """How many of a joined cluster a person wants; None: all that there is room for. A Ray of one's own has no more."""
    return None if cluster.address == "local" else cluster.workers


def alive() -> dict[str, Resources]:
    """Node id -> its resources, of the nodes that are there."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def that_lack(file: Path) -> list[str]:
    """The hosts, of the nodes that are there, on which there is no such file: that do not share its drive."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    @ray.remote(num_cpus=0)
    def is_there() -> bool:
        return file.exists()

    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    asked = {
        name: is_there.options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)).remote()
        for name in nodes
    }
    return [nodes[name] for name, answer in asked.items() if not ray.get(answer)]


def launchable(present: int, wanted: Resources) -> list[tuple[Resources, int]]:
    """The kinds of node that may still join, and how many of each; none where there is no autoscaler.

    present: nodes that are there, head included; wanted: what a worker takes. Only a driver on the head of a cluster of
    `ray up` can tell.
    """
    import ray

    config = BOOTSTRAP.expanduser()
    if not config.is_file() or PRIVATE in ray.cluster_resources():
        return []
    return of_config(yaml.safe_load(config.read_text(encoding="utf-8")), present, wanted)


def of_config(config: Mapping[str, Any], present: int, wanted: Resources) -> list[tuple[Resources, int]]:
    """Of a cluster's configuration: resources of the kinds of worker, and the most of each beside those present."""
    provider = config.get("provider", {})
    if provider.get("type") == "local":  # what those machines have is known when they are there: hope for a worker each
        missing = 1 + len(provider["worker_ips"]) - present
        return [(wanted, missing)] if missing > 0 else []
    room = int(config.get("max_workers", 2)) - max(0, present - 1)
    kinds = dict(config.get("available_node_types") or {})
    kinds.pop(config.get("head_node_type"), None)
    found = [(kind.get("resources") or {}, min(room, int(kind.get("max_workers", 0)))) for kind in kinds.values()]
    return [(resources, count) for resources, count in found if count > 0]


def describe(found: Iterable[Resources]) -> str:
    """The largest of some nodes, by each of their resources."""
    nodes = list(found)
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU", "memory")}
    return f"{_amount(most['CPU'], 'CPU')}, {_amount(most['GPU'], 'GPU')} and {most['memory'] / GIB:.3g} GiB"


def _amount(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"
