"""What nodes can hold, without a cluster."""

import json
from types import SimpleNamespace

import pytest

from raylab import tune
from raylab.cluster import nodes
from raylab.cluster.nodes import GIB, Shape
from raylab.cluster.room import Room
from raylab.config import ClusterConfig, TuneConfig
from raylab.errors import UserError
from tests.test_ray_up import AWS, check, read

BIG = {"CPU": 8.0, "GPU": 2.0, "memory": 60.0 * GIB}
SMALL = {"CPU": 4.0, "memory": 16.0 * GIB}
CONFIG = {
    "max_workers": 10,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 2}, "max_workers": 0},
        "spot": {"resources": BIG, "max_workers": 8},
        "on_demand": {"resources": SMALL, "max_workers": 20},
        "off": {"resources": {"CPU": 64}, "max_workers": 0},
    },
}


@pytest.fixture
def cluster(monkeypatch):
    """A cluster that is only said to be there: what it has, and what it could launch."""
    there, kinds = {}, []
    monkeypatch.setattr(nodes, "alive", lambda: dict(there))
    monkeypatch.setattr(nodes, "launchable", lambda present, wanted: list(kinds))
    return there, kinds


@pytest.mark.parametrize(
    ("shape", "slots"),
    [
        (Shape(), 8),
        (Shape(cpus=0.1), 80),
        (Shape(gpus=0.5), 4),
        (Shape(gpus=4), 0),
        (Shape(memory_gb=20), 3),
        (Shape(cpus=3, gpus=1, memory_gb=1), 2),
    ],
)
def test_how_many_workers_a_node_holds(shape, slots):
    assert shape.slots(BIG) == slots


def test_what_the_autoscaler_can_launch_is_what_its_config_leaves_room_for():
    assert nodes.of_config(CONFIG, 1, {}) == [(BIG, 8), (SMALL, 10)]
    assert nodes.of_config(CONFIG, 8, {}) == [(BIG, 3), (SMALL, 3)]
    assert nodes.of_config(CONFIG, 11, {}) == []


def test_a_machine_that_is_listed_is_hoped_to_hold_a_worker_until_it_is_there():
    listed = {"max_workers": 3, "provider": {"type": "local", "head_ip": "a", "worker_ips": ["b", "c", "d"]}}
    wanted = Shape(gpus=0.5).resources
    assert nodes.of_config(listed, 2, wanted) == [(wanted, 2)] and Shape(gpus=0.5).slots(wanted) == 1
    assert nodes.of_config(listed, 4, wanted) == []


def test_the_file_that_ray_up_leaves_on_the_head_is_read_there_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    resources = {}
    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    assert nodes.launchable(1, {}) == []
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(check(read(AWS))))
    assert nodes.launchable(1, {}) == [({"CPU": 8, "GPU": 1}, 4)] * 2 + [({"CPU": 32}, 4)]
    resources[nodes.PRIVATE] = 1  # a Ray of our own, on such a head
    assert nodes.launchable(1, {}) == []


def test_the_window_follows_the_nodes(cluster):
    there, _ = cluster
    there["a"] = SMALL
    room = Room(Shape())
    assert (room.workers, room.window, room.actors) == (4, 5, 1)
    there["b"] = BIG
    assert not room.look() and (room.workers, room.window, room.actors) == (12, 13, 3)
    del there["a"]
    assert room.look() and (room.workers, room.window) == (8, 9)


def test_a_person_may_want_fewer_workers_than_there_is_room_for(cluster):
    there, _ = cluster
    there["a"] = there["b"] = BIG
    room = Room(Shape(), most=3)
    assert (room.workers, room.window, room.actors) == (3, 3, 1)
    assert Room(Shape(), most=100).window == 17
    assert Room(Shape(gpus=1), gpus_per_eigen_actor=0.5, most=1).workers == 1


def test_cluster_workers_is_a_limit_where_a_cluster_is_joined():
    joined = ClusterConfig(address="auto", workers=3)
    assert nodes.most_workers(joined) == 3
    assert nodes.most_workers(ClusterConfig(address="auto")) is None
    assert nodes.most_workers(ClusterConfig(workers=3)) is None  # Ray has no more CPUs then
    plan = SimpleNamespace(cluster=joined, tune=TuneConfig())
    assert tune._at_a_time(plan) == 3
    plan.tune.max_concurrent = 2
    assert tune._at_a_time(plan) == 2


def test_a_cluster_without_workers_is_asked_for_as_many_as_it_can_launch(cluster):
    there, kinds = cluster
    there["head"] = {"CPU": 0.0}
    kinds.append((BIG, 3))
    room = Room(Shape(gpus=1))
    assert (room.workers, room.window) == (0, 6)


def test_refuses_what_no_node_can_hold_now_or_later(cluster):
    there, kinds = cluster
    there["head"] = SMALL
    kinds.append((BIG, 3))
    with pytest.raises(UserError, match=r"worker of 1 CPU, 4 GPUs: .* can launch 8 CPUs, 2 GPUs and 60 GiB\. Lower"):
        Room(Shape(gpus=4))
    with pytest.raises(UserError, match=r"1 CPU, 0 GPUs, 64 GiB: the largest has 4 CPUs, 0 GPUs and 16 GiB, one"):
        Room(Shape(memory_gb=64))
    with pytest.raises(UserError, match=r"Lower cluster\.cpus_per_worker=99, or take a cluster that has it\.$"):
        Room(Shape(cpus=99))


def test_eigensolvers_on_a_gpu_leave_its_rest_and_all_cpus_to_workers(cluster):
    there, _ = cluster
    there["a"] = BIG | {"GPU": 1.0}
    shares = {"eigen_actors": 1, "gpus_per_eigen_actor": 0.25}
    assert Room(Shape(), **shares).workers == 8
    assert Room(Shape(gpus=0.25), **shares).workers == 3
    with pytest.raises(UserError, match=r"beside eigensolvers of 1 GPUs"):
        Room(Shape(gpus=0.25), **(shares | {"gpus_per_eigen_actor": 1.0}))
    with pytest.raises(UserError, match=r"beside eigensolvers of 1.25 GPUs"):
        Room(Shape(), **(shares | {"eigen_actors": 5}))


def test_another_node_is_found_for_what_came_to_grief_on_one(cluster):
    there, _ = cluster
    there |= {"a": SMALL, "b": BIG, "c": BIG, "head": {"CPU": 0.0}}
    room = Room(Shape())
    assert room.elsewhere(()) is None
    assert {room.elsewhere({"b"}) for _ in range(4)} == {"a", "c"}
    assert room.elsewhere({"a", "b", "c"}) is None
