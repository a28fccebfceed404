"""A small real job on a cluster of namespaces, and how long it takes once something is done to it: for faults.py."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raylab.results import load, statuses
from tests.cluster import clusters, machines

JOB = ("experiment=digits", "models=24", "progress=plain", "cluster=ray")
ROWS_BEFORE = 40  # committed before anything is disturbed
VOLATILE = clusters.VOLATILE | {"trial_id", "own_code"}
TRIAL = ("replicate", "layer", "perturbation", "draw")  # its id also says which code of one's own a study has
AGAIN = "are tried again"
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


@dataclass
class Cluster:
    """Its machines, and the address at which they reach this process."""

    head: machines.Machine
    workers: list[machines.Machine]
    gateway: str


class Seconds(NamedTuple):
    """Since the disturbance, or the start where there is none. NaN: nobody said so."""

    noticed: float
    ended: float


@contextmanager
def cluster_of(of_workers: Sequence[Mapping[str, str]] = ({}, {})) -> Iterator[Cluster]:
    """A head without CPUs and workers of one. of_workers: what the processes of each have in their environment.

    "{gateway}" in it is the address at which they reach this process.
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, machines.network(Path(folder)) as network:
        gateway = f"{network.subnet}.1"
        head, *others = [network.up() for _ in range(1 + len(of_workers))]
        ray = ["ray", "start", "--disable-usage-stats", "--object-store-memory=200000000"]
        own = [
            "--head",
            "--port=6379",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--node-ip-address={head.address}",
        ]
        head.exec(*ray, *own, timeout=600, **RAY)
        for machine, more in zip(others, of_workers, strict=True):
            to = [f"--address={head.address}:6379", f"--node-ip-address={machine.address}", "--num-cpus=1"]
            machine.exec(*ray, *to, timeout=600, **RAY, **{k: v.format(gateway=gateway) for k, v in more.items()})
        yield Cluster(head, others, gateway)


def start(cluster: Cluster, folder: Path | str, *more: str, **environment: str) -> subprocess.Popen[str]:
    """The job, on the head."""
    command = [sys.executable, "-m", "raylab.run", *JOB, f"results={folder}", *more]
    return cluster.head.start(*command, **RAY, **environment)


def run(
    cluster: Cluster,
    folder: Path | str,
    disturb: Callable[[Cluster], None] | None,
    *more: str,
    notice: str = AGAIN,
    expect: int = 0,
    **environment: str,
) -> Seconds:
    """The job to its end, disturbed once some of its rows are there. notice: the words that tell, on screen or in logs.

    expect: its exit code.
    """
    process = start(cluster, folder, *more, **environment)
    began = time.perf_counter()
    if disturb:
        while process.poll() is None and len(statuses(folder)) < ROWS_BEFORE:
            time.sleep(0.2)
        began = time.perf_counter()
        disturb(cluster)
    noticed, said = float("nan"), ""
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    while process.poll() is None:
        time.sleep(0.1)
        with suppress(BlockingIOError):
            said += os.read(process.stdout.fileno(), 2**20).decode()
        if math.isnan(noticed) and (notice in said or _logged(folder, notice)):
            noticed = time.perf_counter() - began
    ended = time.perf_counter() - began
    if process.returncode != expect:
        raise SystemExit(said)
    return Seconds(noticed, ended)


def rows(folder: Path) -> tuple[int, dict[tuple[str, ...], dict[str, str]]]:
    """How many there are, and each trial's, without what may differ between two runs of the same work."""
    table = [{name: repr(value) for name, value in row.items()} for row in load(folder).to_pylist()]
    kept = [{name: value for name, value in row.items() if name not in VOLATILE} for row in table]
    return len(table), {tuple(row[name] for name in TRIAL): row for row in kept}


def size_of(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _logged(folder: Path | str, words: str) -> bool:
    return any(words in path.read_text() for path in (Path(folder) / "logs").glob("*.log"))
