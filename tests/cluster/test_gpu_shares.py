"""Workers and eigensolvers that share a GPU (a pretended one: Ray only counts it)."""

import pytest

from raylab.cluster.nodes import Shape
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


@pytest.mark.timeout(120)
def test_an_eigensolver_that_dies_gets_its_share_back(one_gpu, tmp_path):
    """A queued worker used to take the freed half of the GPU, and everybody waited for everybody."""
    assert Room(Shape(gpus=0.5), 1, 0.5).window == 1
    experiment = Toy(count=120, size=6, measurer_dies_once=True, scratch=str(tmp_path))
    scheduler = Scheduler(experiment, Shape(gpus=0.5), eigen_actors=1, gpus_per_eigen_actor=0.5)
    results = [result for batch in scheduler.stream(experiment.trials()) for result in batch]
    assert (tmp_path / "measurer.disturbed").exists()
    assert len(results) == 120 and {result.status for result in results} == {"ok"}


def test_refuses_shares_that_leave_no_room_for_a_worker(one_gpu):
    with pytest.raises(UserError, match="beside eigensolvers of 1 GPUs"):
        Room(Shape(gpus=0.5), 2, 0.5)
