"""Starts or joins Ray."""

from __future__ import annotations

import importlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylab.cluster.nodes import PRIVATE
from raylab.errors import UserError
from raylab.types import TrialResult

# Each worker process computes with one thread: layers and models in parallel beat BLAS threads, and the answer
# cannot depend on how many cores a node has.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
# glibc gives large blocks back to the system and asks for them again, page by page: kept, a convolutional network is
# evaluated 1.5 to 2 times as fast on a virtual machine, where pages are dear.
_KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**35)}
_WORKERS = {**_ONE_THREAD, **_KEPT_MEMORY}
_ENVIRONMENT = {
    "RAY_task_oom_retries": "3",  # else a worker killed for memory is tried again for ever
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would make Ray zip the folder and rebuild an environment
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_grpc_client_keepalive_time_ms": "10000",  # else calls to a node that was cut off hang for minutes
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
TOKEN = Path("~/.ray/auth_token")  # `ray start` makes it, and asks for it from then on
KNOCK_SECONDS = 10.0  # for a head to say that it listens


@contextmanager
def ray_session(address: str, workers: int | None, object_store_gb: float, shared: object = None) -> Iterator[None]:
    """A Ray session that ends with the block. `address` "local" starts one here and joins nothing.

    object_store_gb: of shared memory beside what the thing that is `shared` by all workers takes itself. What finds no
    room, Ray keeps on disk.
    """
    for name, value in {**_ENVIRONMENT, **_authentication(address)}.items():
        os.environ.setdefault(name, value)
    import ray

    on_terminate = signal.getsignal(signal.SIGTERM)
    quiet = {
        "log_to_driver": True,  # and from there into files: raylab.cluster.watching
        "logging_level": "ERROR",
    }
    if address == "local":
        os.environ |= _WORKERS  # inherited by every process that Ray starts here
        store = int(object_store_gb * 1024**3) + bytes_of(shared)
        ray.init(
            "local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=store,
            resources={PRIVATE: 1},
            **quiet,
        )
    else:
        _join(address, quiet)
    signal.signal(signal.SIGTERM, on_terminate)  # Ray's own handler ends the process before rows are committed
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def watched_session(
    address: str,
    workers: int | None,
    object_store_gb: float,
    shared: object,
    write: Callable[[str, Sequence[str]], None],
    say: Callable[[str], None],
) -> Iterator[Callable[[TrialResult], None]]:
    """A Ray session that is seen from outside; gives what counts results in Ray's metrics.

    write: takes what workers print, by the name of a worker; say: takes a line for the terminal, the dashboard's link.
    """
    with ray_session(address, workers, object_store_gb, shared):
        from raylab.cluster import watching

        with watching.logs(write):
            if url := watching.dashboard():
                say(f"Ray's dashboard: {url}")
            yield watching.meter()


def bytes_of(thing: object) -> int:
    """What a thing takes in Ray's object store. Its arrays are not copied to find out."""
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    arrays: list[int] = []
    rest = cloudpickle.dumps(thing, protocol=5, buffer_callback=lambda buffer: arrays.append(buffer.raw().nbytes))
    return len(rest) + sum(arrays)


def _authentication(address: str) -> dict[str, str]:
    """None to a private, local Ray; who has a token shows it to any other, which may ask for none.

    Ray by itself looks for the token at "auto" alone, and tries at an address, refused, for twenty seconds.
    """
    if address == "local":
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_MODE": "token"} if TOKEN.expanduser().exists() else {}


def _knock(address: str) -> None:
    """Raise OSError, ValueError or RuntimeError where nobody listens: Ray would try for a quarter of an hour.

    address: of a head, or "auto", for which Ray knows one, which may be dead.
    """
    from ray._private.services import canonicalize_bootstrap_address

    found = canonicalize_bootstrap_address(address)
    host, _, port = (found or "").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _join(address: str, quiet: dict[str, Any]) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    advice = "start one with `ray start --head` or `ray up`, or leave out cluster= to use this machine alone."
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else None
    there = f"'{address}'{f', which is RAY_ADDRESS={named}' if named else ''}"
    token = "set RAY_AUTH_MODE=token, and have that of its head in ~/.ray/auth_token."
    try:
        _knock(address)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"No Ray cluster answers at {there}: {advice}") from error
    try:
        ray.init(address, runtime_env={"env_vars": _WORKERS}, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"Something listens at {there}, but no Ray cluster that lets us in: {advice} "
            f"Where a head asks for its token, {token}"
        ) from error
    except AuthenticationError as error:
        raise UserError(f"The Ray cluster at {there} asks for its token: {token}") from error
    if PRIVATE in ray.cluster_resources():
        ray.shutdown()
        raise UserError(f"The only Ray cluster here is the private one of another raylab run: {advice}")
