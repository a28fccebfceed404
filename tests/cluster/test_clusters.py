"""`ray up`, the main job, `ray down`: the files that ship, between machines with addresses of their own."""

import pytest
import yaml

from tests.cluster import clusters
from tests.cluster.cloud import cloud
from tests.cluster.clusters import ROOT, TINY, hosts, installed, laptop, rows, undisturbed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

# Three machines on two cores start slowly, and answer slowly: that is no reason to think them dead.
PATIENT = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_health_check_timeout_ms": "20000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # after which a worker ends without its head
}


def test_machines_by_ssh_do_the_main_job_together_and_let_in_nobody_without_the_token(network):
    own, nodes = laptop(network), [installed(network.up(), **PATIENT) for _ in range(3)]
    cluster = yaml.safe_load((ROOT / "conf/ray_up/local.yaml").read_text())
    cluster["provider"] |= {"head_ip": nodes[0].address, "worker_ips": [each.address for each in nodes[1:]]}
    cluster["auth"] = {"ssh_user": "root", "ssh_private_key": str(network.key)}
    clusters.write(own, "local.yaml", cluster)

    def ray(*words: str) -> str:
        first = {"RAY_UP_enable_autoscaler_v2": "0"}
        return own.exec("env", "-C", "checkout", "ray", words[0], *words[1:], timeout=400, **first)

    ray("up", "-y", "local.yaml")
    out = network.folder / "by_ssh"
    command = f"python -m raylab.run {' '.join(TINY)} cluster=ray results={out}"
    ray("exec", "local.yaml", f"cd raylab && {command}")
    assert rows(out) == undisturbed(network.folder / "quiet")
    assert hosts(out) == {each.name for each in nodes[1:]}  # the head has other things to do

    head = nodes[0]
    job = f"ray job submit --address http://127.0.0.1:8265 -- {command}_again models=1"
    said = head.exec("bash", "-ic", job, timeout=300)
    assert "succeeded" in said and rows(network.folder / "by_ssh_again").items() <= rows(out).items()

    for wrong in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}):
        said = head.exec("env", "-C", "raylab", "python", "-m", "raylab.run", "cluster=ray", check=False, **wrong)
        assert said.strip().splitlines()[-1].startswith("raylab: ") and "token" in said and "Traceback" not in said

    ray("down", "-y", "local.yaml")
    for node in nodes:  # `ray down` stops the head, without which the others end
        clusters.wait_for("machine without Ray", lambda node=node: "raylet" not in node.exec("ps", "-eo", "args"), 120)


def test_spot_instances_come_with_the_work_are_taken_away_in_the_middle_of_it_and_go_after_it(network):
    with cloud(network, **PATIENT, AUTOSCALER_UPDATE_INTERVAL_S="1") as aws:
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

        out, gone = network.folder / "on_spot", []

        def take_one_at_work_away() -> None:
            at_work = [each for each, machine in aws.machines.items() if machine.name in hosts(out)]
            if at_work and not gone:
                gone.append(aws.kind(at_work[0]))
                aws.take_away(at_work[0])

        more = ["models=24", "train.epochs=8"]
        command = f"python -m raylab.run {' '.join([*TINY, *more])} cluster=ray results={out}"
        ray("exec", "cluster.yaml", f"cd raylab && {command}", meanwhile=take_one_at_work_away)
        assert gone == ["cpu_spot"]
        assert rows(out) == undisturbed(network.folder / "quiet_spot", *more)

        clusters.wait_for("head alone", lambda: aws.turn_the_world() or len(aws.instances()) == 1, 200)
        ray("down", "-y", "cluster.yaml")
        assert not aws.instances()
