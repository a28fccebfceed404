"""Workers and eigensolvers that share a GPU (a pretended one: Ray only counts it)."""

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from raylab.cluster import eigen_pool, nodes
from raylab.cluster.eigen_pool import EigenPool
from raylab.cluster.nodes import Shape
from raylab.cluster.patience import Patience
from raylab.cluster.room import Room
from raylab.cluster.scheduler import Scheduler
from raylab.errors import UserError
from tests.cluster.toy import Toy

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def one_gpu():
    import ray

    ray.init(
        "local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 1024**2,
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def short_wait(monkeypatch):
    """pytest cannot interrupt a wait of Ray's: one for a share that never comes must end by itself."""
    monkeypatch.setattr(eigen_pool, "PLACEMENT_SECONDS", 60)


@pytest.fixture
def no_garbage_collected():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.timeout(120)
def test_an_eigensolver_that_dies_gets_its_share_back(one_gpu, tmp_path):
    """A queued worker used to take the freed half of the GPU, and everybody waited for everybody."""
    assert Room(Shape(gpus=0.5), 1, 0.5).window == 1
    experiment = Toy(count=120, size=6, measurer_dies_once=True, scratch=str(tmp_path))
    scheduler = Scheduler(experiment, Shape(gpus=0.5), eigen_actors=1, gpus_per_eigen_actor=0.5)
    results = [result for batch in scheduler.stream(experiment.trials()) for result in batch]
    assert (tmp_path / "measurer.disturbed").exists()
    assert len(results) == 120 and {result.status for result in results} == {"ok"}


@pytest.mark.timeout(120)
def test_the_shares_are_free_again_after_the_last_result(one_gpu, tmp_path, no_garbage_collected):
    """The traceback of an eigensolver's death referred to the pool: what came next waited for its share for ever."""
    for scratch in (tmp_path / "first", tmp_path / "second"):
        scratch.mkdir()
        experiment = Toy(count=12, size=6, measurer_dies_once=True, scratch=str(scratch))
        scheduler = Scheduler(experiment, eigen_actors=1, gpus_per_eigen_actor=1.0)
        assert sum(len(batch) for batch in scheduler.stream(experiment.trials())) == 12


@pytest.mark.timeout(120)
def test_nothing_is_given_to_an_eigensolver_that_has_not_started(one_gpu):
    """It may wait for its share of a GPU for ever, while another would measure what it was given."""
    import ray

    experiment = Toy(count=240, size=6)
    groups, measured = experiment.groups(experiment.trials()), []
    pool = EigenPool(ray.put(experiment.measure), 1, 1.0, 3, Patience(None))
    try:
        pool.patrol(0.0, 2, nodes.alive())  # a second one, for which there is no GPU
        for group in groups:
            pool.submit(group, ray.put(list(experiment.run(group))))
        while len(measured) < len(groups):
            ready, _ = ray.wait(pool.calls, timeout=40)
            assert ready, f"{len(measured)} of {len(groups)} bundles were measured, and then nothing came"
            measured += pool.collect(ready[0])
    finally:
        pool.close()  # the GPU is the next test's
    assert {result.status for _, results, _ in measured for result in results} == {"ok"}


def test_who_is_missing_is_named(one_gpu):
    scheduler: Any = Scheduler(Toy(), Shape(), eigen_actors=1, gpus_per_eigen_actor=0.5)
    scheduler._pool.close()
    scheduler._pool = SimpleNamespace(at_work=False, wants_an_actor=True)
    with pytest.raises(UserError, match=r"No eigensolver of 0 CPUs, 0\.5 GPUs was started within 20 minutes"):
        scheduler._require_a_worker(10**6)
    scheduler._pool.wants_an_actor = False
    with pytest.raises(UserError, match="No worker of 1 CPU, 0 GPUs was started within 20 minutes"):
        scheduler._require_a_worker(10**6)


def test_refuses_shares_that_leave_no_room_for_a_worker(one_gpu):
    with pytest.raises(UserError, match="beside eigensolvers of 1 GPUs"):
        Room(Shape(gpus=0.5), 2, 0.5)
