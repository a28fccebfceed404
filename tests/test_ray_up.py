"""cluster.yaml and its twins, without a cloud: Ray's own schema, and for each machine that is asked for, the
description that AWS and Google publish of such a request. A slip costs a second here, there ten minutes and money."""

import copy
import functools
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from raylab import config
from raylab.cluster import nodes

ROOT = Path(__file__).resolve().parents[1]
AWS = ROOT / "cluster.yaml"
TWINS = config.conf_dir() / "ray_up"
FILES = [AWS, *sorted(TWINS.glob("*.yaml"))]
NAMES = [path.name for path in FILES]
CLOUDS = {"aws": AWS, "gcp": TWINS / "gcp.yaml"}


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def check(cluster: dict) -> dict:
    """As `ray up` has it after its checks. Raises where Ray or the provider would refuse it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    for node in cluster.get("available_node_types", {}).values():
        {"aws": as_aws_reads, "gcp": as_google_reads}[cluster["provider"]["type"]](node["node_config"])
    return prepared


def test_the_role_of_its_machines_knows_them_by_their_names():
    cluster = read(AWS)
    statements = {each["Sid"]: each for each in json.loads((TWINS / "aws_role.json").read_text())["Statement"]}
    machines = {f"{key}/ray-cluster-name": cluster["cluster_name"] for key in ("ec2:ResourceTag", "aws:ResourceTag")}
    conditions = [
        statements[sid]["Condition"]["StringEquals"] for sid in ("EndWorkersOfThisCluster", "TagThoseOfThisCluster")
    ]
    assert conditions[0] | conditions[1] == machines
    (profile,) = {
        node["node_config"]["IamInstanceProfile"]["Name"] for node in cluster["available_node_types"].values()
    }
    assert statements["GiveWorkersThisRole"]["Resource"] == f"arn:aws:iam::*:role/{profile}"
    commands = re.findall(r"file://(\S+)", AWS.read_text())
    assert len(commands) == 2 and all((ROOT / file).is_file() for file in commands)


@functools.cache
def run_instances():
    import botocore.session

    model = botocore.session.get_session().get_service_model("ec2")
    return model.operation_model("RunInstances").input_shape


def as_aws_reads(node: dict) -> None:
    """Against the model of RunInstances that boto3 itself is made from. SubnetIds is Ray's: it takes one of them."""
    from botocore.validate import ParamValidator

    one = {key: value for key, value in node.items() if key != "SubnetIds"} | {"MinCount": 1, "MaxCount": 1}
    one["SubnetId"] = node["SubnetIds"][0]
    report = ParamValidator().validate(one, run_instances())
    assert not report.has_errors(), report.generate_report()


@functools.cache
def schemas_of_compute() -> dict:
    """Every resource of Compute Engine, from the discovery document that google-api-python-client ships."""
    import googleapiclient

    documents = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    return json.loads((documents / "compute.v1.json").read_text())["schemas"]


def as_google_reads(value: object, schema: dict | None = None, at: str = "node_config") -> None:
    """Against the resource Instance: keys, types and listed values."""
    schema = schema or {"$ref": "Instance"}
    schema = schemas_of_compute()[schema["$ref"]] if "$ref" in schema else schema
    kinds = {"object": dict, "array": list, "string": (str, int), "boolean": bool, "integer": int}
    assert isinstance(value, kinds[schema["type"]]), f"{at} must be of type {schema['type']}, not {value!r}"
    assert "enum" not in schema or value in schema["enum"], f"{at}={value}: one of {schema['enum']}"
    if isinstance(value, list):
        for number, each in enumerate(value):
            as_google_reads(each, schema["items"], f"{at}[{number}]")
    if isinstance(value, dict):
        assert not (unknown := value.keys() - schema["properties"].keys()), f"{at} has no {unknown}"
        for key, each in value.items():
            as_google_reads(each, schema["properties"][key], f"{at}.{key}")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_ships_is_what_ray_and_the_cloud_can_read(path):
    prepared = check(read(path))
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert path.name == "local.yaml" or (head["resources"] == {"CPU": 0, "GPU": 0} and head["max_workers"] == 0)


def put(cluster: dict, where: str, value: object) -> None:
    *path, last = (int(part) if part.isdigit() else part for part in where.split("/"))
    inner = functools.reduce(lambda level, part: level[part], path, cluster)
    if value is None:
        del inner[last]
    else:
        inner[last] = value


SLIPS = [
    ("aws", "max_worker", 3),
    ("aws", "available_node_types/gpu_spot/max_worker", 3),
    ("aws", "available_node_types/gpu_spot/min_workers", 9),  # more than all types together
    ("aws", "available_node_types/gpu_spot/priority", "high"),
    ("aws", "head_node_type", "haed"),
    ("aws", "auth/ssh_usr", "ubuntu"),
    ("aws", "provider/security_group", {"Groupname": "raylab"}),
    ("aws", "rsync_exclude", ".venv"),
    ("aws", "available_node_types/gpu_spot/node_config/InstanceTyp", "g5.2xlarge"),
    ("aws", "available_node_types/gpu_spot/node_config/InstanceMarketOptions", {"MarketTyp": "spot"}),
    ("aws", "available_node_types/gpu_spot/node_config/ImageId", 7),
    ("aws", "available_node_types/head/node_config/SecurityGroupIds", "sg-1"),
    ("aws", "available_node_types/head/node_config/BlockDeviceMappings/0/Ebs/VolumeSize", "200 GB"),
    ("aws", "available_node_types/head/node_config/MetadataOptions/HttpToken", "required"),
    ("aws", "available_node_types/head/node_config/IamInstanceProfile", "raylab"),
    ("gcp", "max_worker", 3),
    ("gcp", "provider/project_id", 3),
    ("gcp", "available_node_types/gpu_spot/node_config/machinType", "g2-standard-12"),
    ("gcp", "available_node_types/gpu_spot/node_config/scheduling", [{"preemptible": True}]),
    ("gcp", "available_node_types/gpu_spot/node_config/scheduling/provisioningModel", "SPOTS"),
    ("gcp", "available_node_types/head/node_config/disks/0/initializeParams/diskSizeGB", 200),
    ("gcp", "available_node_types/head/node_config/disks/0/boot", "yes"),
    ("gcp", "available_node_types/head/node_config/serviceAccounts/0/scope", []),
]


@pytest.mark.parametrize(("cloud", "where", "value"), SLIPS, ids=[f"{cloud}:{where}" for cloud, where, _ in SLIPS])
def test_a_slip_is_found(cloud, where, value):
    cluster = read(CLOUDS[cloud])
    put(cluster, where, value)
    with pytest.raises(Exception):  # noqa: B017 - jsonschema's, Ray's, or an assertion here
        check(cluster)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_listens_in_public_nothing_is_secret_and_every_process_is_told_so(path):
    cluster, text = read(path), path.read_text()
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2 and all(". conf/ray_up/environment.sh &&" in command for command in started)
    assert "--dashboard-host=127.0.0.1" in started[0] and "0.0.0.0" not in text
    (label,) = (f"{key}={value}" for key, value in nodes.HEAD.items())
    assert f"--num-cpus=0 --num-gpus=0 --labels={label}" in started[0]
    assert cluster["provider"]["type"] == "local" or cluster["provider"]["use_internal_ips"] is True
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"  # by ssh, not in the file
    assert not re.search(r"AKIA|BEGIN [A-Z ]*KEY|secret_access|auth_token: [^~]", text, re.IGNORECASE)
    environment = (config.conf_dir() / "ray_up" / "environment.sh").read_text()
    assert "RAY_AUTH_MODE=token" in environment and "keepalive" in environment and "health_check" in environment


def test_the_fallback_is_the_same_machine_on_demand():
    for path in CLOUDS.values():
        types = read(path)["available_node_types"]
        spot, sure = types["gpu_spot"], types["gpu_on_demand"]
        assert spot["resources"] == sure["resources"] and spot["priority"] > sure["priority"]
        assert "spot" in json.dumps(spot["node_config"]).lower()
        assert "spot" not in json.dumps(sure["node_config"]).lower()


@pytest.mark.skipif(not shutil.which("uv"), reason="no uv: pip install uv")
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_machines_install_what_the_driver_locked_by_words_that_uv_knows(path):
    cluster = read(path)
    found = (re.search(r"uv sync ([^#]*)", command) for command in cluster["setup_commands"])
    (words,) = (match[1].split() for match in found if match)
    known = subprocess.run(["uv", "sync", "--help"], capture_output=True, text=True, check=True).stdout
    assert "--frozen" in words and all(f"{word} " in known or f"{word}\n" in known for word in words if word[0] == "-")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {word for word in words if word[0] != "-"} <= extras.keys()
    assert "rsync_filter" not in cluster, "git ignores uv.lock: machines would be without it"


def test_the_folder_is_no_group_of_hydra():
    assert "ray_up" not in config.groups()
