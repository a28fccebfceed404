"""Starts or joins Ray, and refuses at once what no node can hold, instead of waiting for it for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from raylab.errors import UserError

# Each worker process computes with one thread: layers and models in parallel beat BLAS threads, and the answer
# cannot depend on how many cores a node has.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
_ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would make Ray zip the folder and rebuild an environment
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "disabled",  # a private, local Ray; a cluster states its own mode
}


@contextmanager
def ray_session(address: str, workers: int | None, object_store_gb: float) -> Iterator[None]:
    """A Ray session that ends with the block. `address` "local" starts one here and joins nothing."""
    for name, value in _ENVIRONMENT.items():
        if name != "RAY_AUTH_MODE" or address == "local":
            os.environ.setdefault(name, value)
    import ray

    on_terminate = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        os.environ |= _ONE_THREAD  # inherited by every process that Ray starts here
        store = int(object_store_gb * 1024**3)
        ray.init("local", num_cpus=workers, include_dashboard=False, object_store_memory=store, **quiet)
    else:
        try:
            ray.init(address, runtime_env={"env_vars": _ONE_THREAD}, **quiet)
        except ConnectionError as error:
            raise UserError(
                f"No Ray cluster answers at '{address}': start one with `ray up cluster.yaml`, or leave out cluster=."
            ) from error
    signal.signal(signal.SIGTERM, on_terminate)  # Ray's own handler ends the process before rows are committed
    try:
        yield
    finally:
        ray.shutdown()


def worker_slots(cpus_per_worker: float, gpus_per_worker: float) -> int:
    """How many workers all nodes together can hold.

    Raises UserError where no node can hold even one.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(_slots(node, cpus_per_worker, gpus_per_worker) for node in nodes)
    if slots == 0:
        largest = {name: max(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        raise UserError(
            f"No node can hold a worker of {cpus_per_worker:g} CPUs and {gpus_per_worker:g} GPUs: the largest has "
            f"{largest['CPU']:g} and {largest['GPU']:g}. Lower cluster.cpus_per_worker or cluster.gpus_per_worker."
        )
    return slots


def _slots(node: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = node.get("CPU", 0) / cpus if cpus else float("inf")
    by_gpu = node.get("GPU", 0) / gpus if gpus else float("inf")
    return int(min(by_cpu, by_gpu, 1e6))
