"""The file that ships for AWS, on moto's EC2 with machines of this network as instances."""

import pytest
import yaml

from raylab.results import statuses
from tests.cluster import clusters
from tests.cluster.clusters import PATIENT, ROOT, TINY, hosts, laptop, rows, undisturbed
from tests.cluster.on_aws import BUCKET, cloud
from tests.paced import METRIC, SLOWLY

pytestmark = [pytest.mark.ray_up, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]


def test_spot_instances_come_with_the_work_are_taken_away_in_the_middle_of_it_and_go_after_it(network, monkeypatch):
    with cloud(network, **PATIENT, **SLOWLY, AUTOSCALER_UPDATE_INTERVAL_S="1") as aws:
        for key, value in aws.environment.items():
            monkeypatch.setenv(key, value)
        own = laptop(network)
        cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        aws.fill_in(cluster)
        # Instances of the size of this box, and no time to lose.
        cluster["available_node_types"]["cpu_spot"]["resources"] = {"CPU": 1}
        cluster |= {"max_workers": 2, "idle_timeout_minutes": 0.1}
        clusters.write(own, "cluster.yaml", cluster)

        def ray(*words: str, meanwhile=lambda: None) -> None:
            process = own.start("env", "-C", "checkout", "ray", *words, **aws.environment)
            clusters.until_it_ends(process, lambda: (aws.turn_the_world(), meanwhile()))

        ray("up", "-y", "cluster.yaml")
        assert [aws.kind(each) for each in aws.instances()] == ["head"]  # nothing to do: nobody there

        out, gone, done = f"s3://{BUCKET}/on_spot", [], []

        def take_one_at_work_away() -> None:
            at_work = [each for each, machine in aws.machines.items() if machine.name in hosts(out)]
            if at_work and not gone:
                done.append(len(statuses(out)))
                gone.append(aws.kind(at_work[0]))
                aws.take_away(at_work[0])

        more = ["models=24", f"metrics=[{METRIC}]"]
        command = f"python -m raylab.run {' '.join([*TINY, *more])} cluster=ray results={out}"
        ray("exec", "cluster.yaml", f"cd raylab && {command}", meanwhile=take_one_at_work_away)
        whole = undisturbed(network.folder / "quiet_spot", *more)
        assert gone == ["cpu_spot"] and done[0] < len(whole), "nothing was taken away in the middle of it"
        assert rows(out) == whole

        clusters.wait_for("head alone", lambda: aws.turn_the_world() or len(aws.instances()) == 1, 200)
        ray("down", "-y", "cluster.yaml")
        assert not aws.instances()
