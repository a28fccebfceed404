"""A Ray session has room for what its workers share."""

import socket
import tracemalloc

import numpy as np
import pytest

from raylab.cluster import preflight
from raylab.cluster.preflight import bytes_of, ray_session
from raylab.errors import UserError

pytestmark = pytest.mark.cluster
MB = 1024**2


def test_the_object_store_has_room_for_what_is_shared_and_for_what_is_on_its_way():
    import ray

    shared = {"pixels": np.zeros(200 * MB, np.uint8)}
    with ray_session("local", 1, 0.1, shared):
        room = ray.cluster_resources()["object_store_memory"]
        assert 200 * MB <= room - 0.1 * 1024 * MB < 201 * MB
        kept = ray.get(ray.put(shared))["pixels"]
        assert kept.nbytes == 200 * MB and not kept.flags.writeable


def test_how_much_a_thing_takes_is_found_out_without_a_copy():
    pixels = np.zeros(100 * MB, np.uint8)
    bytes_of(None)  # Ray is imported
    tracemalloc.start()
    assert 100 * MB <= bytes_of([pixels, pixels, np.zeros(MB, np.uint8)]) < 102 * MB
    assert tracemalloc.get_traced_memory()[1] < 10 * MB
    tracemalloc.stop()


@pytest.mark.timeout(60)
def test_that_nobody_listens_is_said_at_once():
    """Ray tried for a quarter of an hour, with a line of its own every few seconds."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with (
        pytest.raises(UserError, match=f"No Ray cluster answers at '{address}': start one"),
        ray_session(address, 1, 1),
    ):
        pass


def test_who_has_a_token_shows_it_to_a_cluster_that_is_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "TOKEN", tmp_path / "auth_token")
    assert preflight._authentication("10.0.0.1:6379") == {}
    (tmp_path / "auth_token").write_text("f" * 64)
    assert preflight._authentication("10.0.0.1:6379") == {"RAY_AUTH_MODE": "token"}
    assert preflight._authentication("local") == {"RAY_AUTH_MODE": "disabled"}
