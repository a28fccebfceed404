"""A node is lost in the middle of a run, with what it was at and what it had not handed on."""

import time

import pytest

from raylab.cluster import inline
from tests.cluster.test_scheduler import values
from tests.cluster.toy import Toy

pytestmark = pytest.mark.cluster


@pytest.mark.timeout(200)
def test_a_lost_node_loses_and_doubles_nothing():
    import ray
    from ray.cluster_utils import Cluster

    from raylab.cluster.scheduler import Scheduler

    store = 150 * 1024**2
    head = {"num_cpus": 1, "object_store_memory": store, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    lost = cluster.add_node(num_cpus=1, object_store_memory=store)
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        experiment = Toy(count=36, size=6, seconds=0.5)
        scheduler = Scheduler(experiment)
        assert scheduler._room.window == 3, "both nodes and one that is queued"
        results, killed = [], False
        for batch in scheduler.stream(experiment.trials()):
            results += batch
            at_work = {flight.node for flight in scheduler._flights.values() if flight.streaming}
            if not killed and results and lost.node_id in at_work:
                lost.kill_raylet()
                killed = True
        assert killed, "no node was lost: the test shows nothing"
        assert values(results) == values([r for b in inline.stream(Toy(36, 6), experiment.trials()) for r in b])
        deadline = time.monotonic() + 60
        while not scheduler._room.look() and len(scheduler._room.nodes) > 1 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert scheduler._room.window == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
