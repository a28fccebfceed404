import gc
import os
import socket
import weakref

import pytest

from raylab.cluster import inline, nodes
from raylab.cluster.nodes import Shape
from raylab.cluster.preflight import ray_session
from raylab.cluster.room import Room
from raylab.config import ClusterConfig
from raylab.errors import UserError
from raylab.types import TrialResult
from tests.cluster.toy import Toy

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def ray_here():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")  # which workers must not inherit
        with ray_session("local", workers=2, object_store_gb=0.2):
            yield


def run(experiment: Toy, **options) -> list[TrialResult]:
    from raylab.cluster.scheduler import Scheduler

    scheduler = Scheduler(experiment, **options)
    return [result for batch in scheduler.stream(experiment.trials()) for result in batch]


def values(results: list[TrialResult]) -> dict[str, tuple[str, float | None]]:
    assert len({result.trial.id for result in results}) == len(results), "a trial came back twice"
    return {r.trial.id: (r.status, r.values.get("sigma_max")) for r in results}


def expected(experiment: Toy) -> dict[str, tuple[str, float | None]]:
    return values([result for batch in inline.stream(experiment, experiment.trials()) for result in batch])


@pytest.mark.parametrize("actors", [1, 2])
def test_gives_what_one_process_gives(ray_here, actors):
    experiment = Toy(count=40, size=5)
    assert values(run(experiment, eigen_actors=actors)) == expected(experiment)


def test_a_joined_cluster_is_given_no_more_workers_than_a_person_wants(ray_here):
    from raylab.cluster.scheduler import Scheduler

    assert Scheduler.of(Toy(), ClusterConfig(address="auto")).workers == 2
    scheduler = Scheduler.of(Toy(count=8), ClusterConfig(address="auto", workers=1))
    in_flight = [scheduler._streaming for _ in scheduler.stream(Toy(count=8).trials())]
    assert scheduler.workers == 1 and max(in_flight) <= 1


class Mapped(Toy):
    """Its outcomes come from an iterator that is no generator."""

    def run(self, group):
        return iter(list(super().run(group)))


def test_an_experiment_may_give_any_iterator(ray_here):
    experiment = Mapped(count=12, size=6)
    assert values(run(experiment)) == expected(experiment)


def test_a_group_that_raises_fails_only_what_it_had_not_given(ray_here):
    experiment = Toy(count=12, size=4, raises_in=1)
    results = run(experiment)
    failed = [result for result in results if result.status == "failed"]
    assert len(results) == 12 and len(failed) == 2
    assert all(result.trial.replicate == 1 and "no such luck" in (result.error or "") for result in failed)


@pytest.mark.parametrize(
    ("who", "disturbance"),
    [
        ("worker", {"dies_once_in": 2}),
        ("worker", {"hangs_once_in": 2}),
        ("measurer", {"measurer_dies_once": True}),
        ("measurer", {"measurer_hangs_once": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_who_is_killed_or_hangs_loses_and_doubles_nothing(ray_here, tmp_path, who, disturbance):
    experiment = Toy(count=24, size=6, scratch=str(tmp_path), **disturbance)
    results = values(run(experiment, eigen_actors=2, deadline_minutes=5 / 60))
    assert (tmp_path / f"{who}.disturbed").exists(), "nothing was disturbed: the test shows nothing"
    assert results == expected(Toy(count=24, size=6))


def test_an_error_keeps_nothing_alive_of_who_fetched_it(ray_here):
    import ray
    from ray.exceptions import RayActorError

    from raylab.cluster.fetching import fetch

    class Held:
        pass

    @ray.remote(num_cpus=0)
    class Dies:
        def __init__(self):
            os._exit(1)

        def node(self):
            pass

    def fetched() -> weakref.ref[Held]:
        held = Held()
        with pytest.raises(RayActorError):
            fetch(Dies.remote().node.remote())
        return weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        assert fetched()() is None
    finally:
        gc.enable()


def test_what_is_quick_says_nothing_of_what_costs_more(ray_here, tmp_path, monkeypatch):
    """A model to train, among some that have a checkpoint: it used to be killed again and again, and then to fail.

    So is one that diverges at once: of a training that goes well it says nothing.
    """
    from raylab.cluster import patience, scheduler

    monkeypatch.setattr(patience, "AT_LEAST_MINUTES", 2.0 / 60)
    monkeypatch.setattr(scheduler, "PATROL_SECONDS", 0.2)
    experiment = Toy(count=24, size=4, slow=(2, 7.0), fails_at_once=4, scratch=str(tmp_path))
    results = run(experiment)
    assert {r.trial.replicate for r in results if r.status == "failed"} == {4} and len(results) == 24
    assert (tmp_path / "slow.begun").read_text() == "x", "it was given up, and begun again"


def test_what_no_worker_survives_fails_alone(ray_here):
    results = run(Toy(count=12, size=4, kills=(1, "fc2")), retries=1)
    (failed,) = (result for result in results if result.status == "failed")
    assert len(results) == 12 and (failed.trial.replicate, failed.trial.layer) == (1, "fc2")
    assert "worker died" in (failed.error or "") and "tried 4 times" in (failed.error or "")


def test_refuses_what_no_node_can_hold(ray_here):
    with pytest.raises(UserError, match="No node can hold a worker of 1 CPU, 4 GPUs: the largest has 2 CPUs, 0 GPUs"):
        Room(Shape(gpus=4))
    with pytest.raises(
        UserError, match=r"9999 GiB: the largest has .* Lower cluster\.memory_gb_per_worker=9999, or take"
    ):
        Room(Shape(memory_gb=9999))
    assert Room(Shape(cpus=0.5)).workers == 4


def test_nodes_that_do_not_share_a_drive_are_found(ray_here, tmp_path):
    (tmp_path / "here").touch()
    assert nodes.that_lack(tmp_path / "here") == []
    assert nodes.that_lack(tmp_path / "elsewhere") == [socket.gethostname()]


def test_workers_compute_with_one_thread(ray_here):
    import ray

    threads = ray.get(ray.remote(lambda: os.environ["OMP_NUM_THREADS"]).remote())
    assert threads == "1"


def test_refuses_an_eigensolver_that_no_node_can_hold(ray_here):
    with pytest.raises(UserError, match=r"beside eigensolvers of 0.5 GPUs: the largest has 2 CPUs, 0 GPUs"):
        run(Toy(), gpus_per_eigen_actor=0.5)
