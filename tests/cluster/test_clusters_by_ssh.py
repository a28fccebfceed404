"""`ray up`, the main job, `ray down`: the file that ships for machines by ssh, between machines of this network."""

import pytest
import yaml

from tests.cluster import clusters
from tests.cluster.clusters import PATIENT, ROOT, TINY, hosts, installed, laptop, rows, undisturbed
from tests.paced import METRIC, SLOWLY

pytestmark = [pytest.mark.ray_up, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]


def test_machines_by_ssh_do_the_main_job_together_and_let_in_nobody_without_the_token(network):
    own, nodes = laptop(network), [installed(network.up(), **PATIENT, **SLOWLY) for _ in range(3)]
    cluster = yaml.safe_load((ROOT / "conf/ray_up/local.yaml").read_text())
    cluster["provider"] |= {"head_ip": nodes[0].address, "worker_ips": [each.address for each in nodes[1:]]}
    cluster["auth"] = {"ssh_user": "root", "ssh_private_key": str(network.key)}
    clusters.write(own, "local.yaml", cluster)

    def ray(*words: str) -> str:
        first = {"RAY_UP_enable_autoscaler_v2": "0"}
        return own.exec("env", "-C", "checkout", "ray", words[0], *words[1:], timeout=400, **first)

    ray("up", "-y", "local.yaml")
    out = network.folder / "by_ssh"
    metrics = f"metrics=[standard,{METRIC}]"
    command = f"python -m raylab.run {' '.join(TINY)} {metrics} cluster=ray results={out}"
    ray("exec", "local.yaml", f"cd raylab && {command}")
    assert rows(out) == undisturbed(network.folder / "quiet", metrics)
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
