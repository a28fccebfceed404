"""What faults cost: each is done to a run of a small real job, whose rows are then compared with an undisturbed run's.

    python -m benchmarks.faults [worker hang eigensolver raylet cut minute driver]

Machines are network namespaces (tests/cluster/machines.py: Linux, root): a head, which runs the driver and no trials,
and two workers of one CPU each. Ray takes a silent node for dead after three seconds, as in our cluster.yaml. Wall
seconds since the disturbance: until the driver said that it tries again, and until the run had ended; on a busy machine
they are upper bounds. "driver" kills the command 20 times, at random moments, and runs it once more.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raylab.results import load, statuses
from tests.cluster import machines

JOB = ("experiment=digits", "models=24", "progress=plain", "cluster=ray")
ROWS_BEFORE = 40  # committed before anything is disturbed
DRIVER_KILLS = 20
HANG_MINUTES = 1.0
VOLATILE = {"seconds", "train_seconds", "started_at", "finished_at", "host", "config", "code", "versions"}
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


@dataclass
class Cluster:
    head: machines.Machine
    workers: list[machines.Machine]


def kill(name: str, signal: str) -> Callable[[Cluster], None]:
    """One process of that name, on the first worker's machine that has one."""

    def disturb(cluster: Cluster) -> None:
        for machine in cluster.workers:
            if machine.exec("pgrep", "-f", name, check=False).strip():
                machine.exec("pkill", f"-{signal}", "-o", "-f", name)
                return
        raise SystemExit(f"no process {name} is at work")

    return disturb


def cut_a_minute(cluster: Cluster) -> None:
    cluster.workers[0].cut()
    threading.Timer(60, cluster.workers[0].heal).start()


FAULTS: dict[str, tuple[str, Callable[[Cluster], None]]] = {
    "worker": ("a worker process killed", kill("^ray::work", "KILL")),
    "hang": (f"a worker that hangs, deadline {HANG_MINUTES:g} min", kill("^ray::work", "STOP")),
    "eigensolver": ("an eigensolver killed", kill("^ray::Measurer", "KILL")),
    "raylet": ("a raylet killed", kill("raylet/raylet", "KILL")),
    "cut": ("a node's link cut for good", lambda cluster: cluster.workers[0].cut()),
    "minute": ("a node's link cut for a minute", cut_a_minute),
}


@contextmanager
def cluster_of(workers: int) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, machines.network(Path(folder)) as network:
        head, *others = [network.up() for _ in range(workers + 1)]
        quiet = ["--disable-usage-stats", "--object-store-memory=200000000"]
        start = ["ray", "start", *quiet]
        head.exec(
            *start, "--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false",
            f"--node-ip-address={head.address}", timeout=600, **RAY,
        )  # fmt: skip
        for machine in others:
            to = [f"--address={head.address}:6379", f"--node-ip-address={machine.address}", "--num-cpus=1"]
            machine.exec(*start, *to, timeout=600, **RAY)
        yield Cluster(head, others)


def run(cluster: Cluster, folder: Path, disturb: Callable[[Cluster], None] | None, *more: str) -> tuple[float, float]:
    """Seconds after the disturbance (or the start) until the driver said that it tries again, and until the end."""
    command = [sys.executable, "-m", "raylab.run", *JOB, f"results={folder}", *more]
    process = cluster.head.start(*command, **RAY)
    began = time.perf_counter()
    if disturb:
        while process.poll() is None and len(statuses(folder)) < ROWS_BEFORE:
            time.sleep(0.2)
        began = time.perf_counter()
        disturb(cluster)
    noticed = float("nan")
    lines = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line)
        if "are tried again" in line and noticed != noticed:
            noticed = time.perf_counter() - began
    if process.wait():
        raise SystemExit("".join(lines))
    return noticed, time.perf_counter() - began


def killed_drivers(cluster: Cluster, folder: Path) -> int:
    """Kill the command at random moments of its work. Returns how many kills came before the end."""
    moments, kills = random.Random(0), 0
    for _ in range(DRIVER_KILLS):
        before = len(statuses(folder))
        process = cluster.head.start(sys.executable, "-m", "raylab.run", *JOB, f"results={folder}", **RAY)
        while process.poll() is None and len(statuses(folder)) <= before:
            time.sleep(0.1)
        time.sleep(moments.uniform(0, 2))
        if process.poll() is None:
            cluster.head.exec("pkill", "-KILL", "-f", "raylab.run")
            kills += 1
        process.wait()
    return kills


def rows(folder: Path) -> tuple[int, dict[str, dict[str, str]]]:
    table = load(folder).to_pylist()
    return len(table), {r["trial_id"]: {k: repr(v) for k, v in r.items() if k not in VOLATILE} for r in table}


def main(names: list[str]) -> None:
    print("| fault | noticed after, s | run ended after, s | rows lost | rows twice | rows that differ |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        quiet = Path(scratch) / "quiet"
        with cluster_of(2) as cluster:
            _, seconds = run(cluster, quiet, None)
        _, expected = rows(quiet)
        print(f"| none: {len(expected):,} rows | - | {seconds:.0f} (all of it) | - | - | - |", flush=True)
        for name in names or [*FAULTS, "driver"]:
            folder = Path(scratch) / name
            with cluster_of(2) as cluster:
                if name == "driver":
                    kills = killed_drivers(cluster, folder)
                    said, noticed, seconds = (
                        f"the driver killed {kills} times",
                        float("nan"),
                        run(cluster, folder, None)[1],
                    )
                else:
                    said, disturb = FAULTS[name]
                    deadline = [f"cluster.deadline_minutes={HANG_MINUTES}"] if name == "hang" else []
                    noticed, seconds = run(cluster, folder, disturb, *deadline)
            count, found = rows(folder)
            differ = sum(found[trial] != expected.get(trial) for trial in found)
            print(
                f"| {said} | {noticed:.1f} | {seconds:.0f} | {len(expected.keys() - found.keys())} "
                f"| {count - len(found)} | {differ} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
