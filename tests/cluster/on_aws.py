"""Amazon's EC2 as moto plays it, with a machine of this network behind every instance that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from tests.cluster.clusters import installed
from tests.cluster.machines import Machine, Network

REGION = "us-west-2"
PORT = 5000
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}


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
    """An account with a network, a security group and a role, as cluster.yaml asks for."""

    def __init__(self, network: Network, environment: dict[str, str]) -> None:
        self._network = network
        # A machine there has its role in place of keys; moto has no service that would hand them out.
        self.environment = {
            **KEYS,
            "AWS_ENDPOINT_URL": f"http://{network.subnet}.1:{PORT}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._of_instances = {**self.environment, **environment}
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        where = {"endpoint_url": self.environment["AWS_ENDPOINT_URL"], "region_name": REGION}
        self.ec2 = boto3.client("ec2", **where, **keys)
        boto3.client("iam", **where, **keys).create_instance_profile(InstanceProfileName="raylab")
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
