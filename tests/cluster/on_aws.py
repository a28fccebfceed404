"""Amazon's EC2 as moto plays it, with a machine of this network behind every instance that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import requests
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from tests.cluster.clusters import ROOT, installed
from tests.cluster.machines import Machine, Network

REGION = "us-west-2"
PORT = 5000
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
BUCKET = "results"
ALL = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


@contextmanager
def cloud(network: Network, **environment: str) -> Iterator[Cloud]:
    """The cloud, at this machine's address on the network. environment: of every process on its instances."""
    server = ThreadedMotoServer(f"{network.subnet}.1", PORT, verbose=False)
    server.start()
    try:
        yield Cloud(network, environment)
    finally:
        server.stop()


class Cloud:
    """An account with a network, a security group, a role and a bucket, as cluster.yaml asks for.

    Nobody may do what he is not allowed to: instances what the file for their role says. (moto looks at calls, and
    of S3's at the bucket; not at conditions.)
    """

    def __init__(self, network: Network, environment: dict[str, str]) -> None:
        self._network = network
        url = f"http://{network.subnet}.1:{PORT}"
        where = {"AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}
        owner, role = _accounts(url)
        self.environment = where | owner
        # A machine there has its role in place of keys; moto has no service that would hand them out.
        self._of_instances = where | role | environment
        self.ec2 = _client("ec2", url, owner)
        here = {"LocationConstraint": REGION}
        _client("s3", url, owner).create_bucket(Bucket=BUCKET, CreateBucketConfiguration=here)
        requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=10).raise_for_status()  # from now on
        self.machines: dict[str, Machine] = {}  # by the number of their instance

    def fill_in(self, cluster: dict) -> None:
        """What cluster.yaml leaves open, and the image, which moto cannot look up."""
        block = f"{self._network.subnet}.0/24"
        vpc = self.ec2.create_vpc(CidrBlock=block)["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
        group = self.ec2.create_security_group(GroupName="raylab", Description="raylab", VpcId=vpc)["GroupId"]
        image = self.ec2.describe_images()["Images"][0]["ImageId"]
        for node in cluster["available_node_types"].values():
            node["node_config"] |= {"SubnetIds": [subnet], "SecurityGroupIds": [group], "ImageId": image}

    def instances(self) -> dict[str, dict]:
        """Those that run."""
        running = [{"Name": "instance-state-name", "Values": ["running"]}]
        found = self.ec2.describe_instances(Filters=running)["Reservations"]
        return {each["InstanceId"]: each for group in found for each in group["Instances"]}

    def kind(self, instance: str) -> str:
        """The node type that Ray launched it as."""
        tags = {tag["Key"]: tag["Value"] for tag in self.instances()[instance]["Tags"]}
        return tags["ray-user-node-type"]

    def take_away(self, instance: str) -> None:
        """A spot instance is gone, without a word."""
        self.ec2.terminate_instances(InstanceIds=[instance])
        self.turn_the_world()

    def turn_the_world(self) -> None:
        """Let there be a machine behind every instance that runs, and none behind others."""
        running = self.instances()
        for instance in self.machines.keys() - running.keys():
            self.machines.pop(instance).down()
        for instance in running.keys() - self.machines.keys():
            machine = installed(self._network.up(running[instance]["PrivateIpAddress"]), **self._of_instances)
            self._let_in(machine, running[instance]["KeyName"])
            self.machines[instance] = machine

    def _let_in(self, machine: Machine, key: str) -> None:
        (pair,) = self.ec2.describe_key_pairs(KeyNames=[key], IncludePublicKey=True)["KeyPairs"]
        folder = Path(machine.own / "tmp/home/.ssh")
        folder.mkdir(exist_ok=True)
        (folder / "authorized_keys").write_text(pair["PublicKey"] + "\n")


def _client(service: str, url: str, keys: dict[str, str]) -> Any:
    given = {name.lower(): key for name, key in keys.items()}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **given)


def _accounts(url: str) -> tuple[dict[str, str], dict[str, str]]:
    """Keys of the owner, who may do all, and of the role that cluster.yaml's comments make."""
    iam = _client("iam", url, KEYS)
    iam.create_user(UserName="owner")
    iam.put_user_policy(UserName="owner", PolicyName="all", PolicyDocument=json.dumps(ALL))
    key = iam.create_access_key(UserName="owner")["AccessKey"]
    role = iam.create_role(RoleName="raylab", AssumeRolePolicyDocument=json.dumps(ALL))["Role"]
    policy = (ROOT / "conf" / "ray_up" / "aws_role.json").read_text().replace("BUCKET", BUCKET)
    iam.put_role_policy(RoleName="raylab", PolicyName="raylab", PolicyDocument=policy)
    iam.create_instance_profile(InstanceProfileName="raylab")
    iam.add_role_to_instance_profile(InstanceProfileName="raylab", RoleName="raylab")
    lent = _client("sts", url, KEYS).assume_role(RoleArn=role["Arn"], RoleSessionName="instance")["Credentials"]
    return (
        {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]},
        {
            "AWS_ACCESS_KEY_ID": lent["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": lent["SecretAccessKey"],
            "AWS_SESSION_TOKEN": lent["SessionToken"],
        },
    )
