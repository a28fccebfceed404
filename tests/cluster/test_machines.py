"""What is built on machines is true only if they are apart from each other, and from this one."""

import socket

import pytest

pytestmark = pytest.mark.cluster


def test_a_machine_is_a_world_of_its_own_and_others_reach_it_by_ssh(network):
    one, other = network.up(), network.up()
    assert one.exec("hostname").strip() == one.name != other.name
    assert other.address in other.exec("ip", "-brief", "address", "show", "eth0")
    one.exec("touch", "/tmp/mine", "/dev/shm/mine", "mine")
    assert "mine" not in other.exec("ls", "/tmp", "/dev/shm", ".")
    assert len(other.exec("ps", "-eo", "pid=").splitlines()) < 5
    (network.folder / "note").write_text("on the shared drive")
    ssh = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-i", str(network.key)]
    assert one.exec(*ssh, other.name, f"hostname; cat {network.folder}/note") == f"{other.name}\non the shared drive"


def test_a_cable_is_pulled_and_put_back_and_a_power_failure_is_for_good(network):
    one, other = network.up(), network.up()

    def answers(within: int = 30) -> bool:
        """Whether ssh says who it is in so many seconds; at once, on a machine that is not busy."""
        ask = f"head -1 < /dev/tcp/{other.address}/22"
        return "OpenSSH" in one.exec("timeout", str(within), "bash", "-c", ask, check=False)

    assert answers()
    other.cut()
    assert not answers(within=1)
    other.heal()
    assert answers()
    with socket.create_connection((other.address, 22), timeout=5) as connection:  # this machine is on the network too
        assert connection.recv(7) == b"SSH-2.0"
    other.down()
    assert not answers(within=1)
    again = network.up(other.address)
    assert answers() and again.exec("ls").strip() == ""
