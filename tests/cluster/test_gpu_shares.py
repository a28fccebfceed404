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
from raylab.types import TrialResult
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


@pytest.mark.timeout(200)
def test_the_shares_are_free_again_after_the_last_result(one_gpu, tmp_path, no_garbage_collected):
    """The traceback of an eigensolver's death referred to the pool: what came next waited for its share for ever."""

    def work(scratch) -> set[str]:
        scratch.mkdir()
        experiment = Toy(count=12, size=6, measurer_dies_once=True, scratch=str(scratch))
        scheduler = Scheduler(experiment, eigen_actors=1, gpus_per_eigen_actor=1.0)
        return {result.status for batch in scheduler.stream(experiment.trials()) for result in batch}

    for turn in ("first", "second"):
        assert work(tmp_path / turn) == {"ok"}
        assert (tmp_path / turn / "measurer.disturbed").exists()


@pytest.fixture
def bundles(one_gpu):
    """References of what is to be measured, by group; a pool for it that has the GPU; and what it gives, all of it."""
    import ray

    experiment = Toy(count=240, size=6)
    pool = EigenPool(ray.put(experiment.measure), 1, 1.0, 3, Patience(None))

    def measured() -> list[TrialResult]:
        groups, found = experiment.groups(experiment.trials()), []
        for group in groups:
            pool.submit(group, ray.put(list(experiment.run(group))))
        while len(found) < len(groups):
            ready, _ = ray.wait(pool.calls, timeout=40)
            assert ready, f"{len(found)} of {len(groups)} bundles were measured, and then nothing came"
            found += pool.collect(ready[0])
        return [result for _, results, _ in found for result in results]

    yield pool, measured
    pool.close()


@pytest.mark.timeout(120)
def test_nothing_is_given_to_an_eigensolver_that_has_not_started(one_gpu, bundles):
    """It may wait for its share of a GPU for ever, while another would measure what it was given."""
    pool, measured = bundles
    pool.patrol(0.0, 2, nodes.alive())  # a second one, for which there is no GPU
    assert [result.status for result in measured()] == ["ok"] * 240


@pytest.mark.timeout(120)
def test_an_eigensolver_that_cannot_be_reached_gives_its_share_to_its_successor(one_gpu, bundles, monkeypatch):
    """It may be alive and somebody may refer to it, as here, so that Ray lets it have the share, which nobody uses."""
    from ray.exceptions import ActorUnavailableError

    pool, measured = bundles
    fetch, unreached = eigen_pool.fetch, []

    def unavailable_once(reference):
        if unreached or not pool._started:
            return fetch(reference)
        unreached.append(reference)
        raise ActorUnavailableError("its node does not answer", None)

    monkeypatch.setattr(eigen_pool, "fetch", unavailable_once)
    first = pool._actors[0]
    assert [result.status for result in measured()] == ["ok"] * 240
    assert unreached and first not in pool._actors


def test_who_is_missing_is_named(one_gpu):
    scheduler: Any = Scheduler(Toy(), Shape(), eigen_actors=1, gpus_per_eigen_actor=0.5)
    scheduler._pool = SimpleNamespace(at_work=False, wants_an_actor=True)
    with pytest.raises(UserError, match=r"No eigensolver of 0 CPUs, 0\.5 GPUs was started within 20 minutes"):
        scheduler._require_a_worker(10**6)
    scheduler._pool.wants_an_actor = False
    with pytest.raises(UserError, match="No worker of 1 CPU, 0 GPUs was started within 20 minutes"):
        scheduler._require_a_worker(10**6)


def test_refuses_shares_that_leave_no_room_for_a_worker(one_gpu):
    with pytest.raises(UserError, match="beside eigensolvers of 1 GPUs"):
        Room(Shape(gpus=0.5), 2, 0.5)
