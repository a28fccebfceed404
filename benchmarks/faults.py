"""What faults cost: each is done to a run of a small real job, whose rows are then compared with an undisturbed run's.

    python -m benchmarks.faults [worker hang raylet cut minute eigensolver memory driver disk damage s3 outage
    silence clock]

Machines are network namespaces (tests/cluster/machines.py: Linux, root): a head, which runs the driver and no trials,
and two workers of one CPU each. Ray takes a silent node for dead after three seconds, as in our cluster.yaml. Wall
seconds since the disturbance: until the driver said that it tries again, and until the run had ended; on a busy machine
they are upper bounds.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.disturbed import Cluster, Seconds, cluster_of, rows, run, size_of, start
from raylab.results import statuses
from tests.cloud import Cloud

DRIVER_KILLS = 20
MORE = ("models=192",)  # work for so many kills, on a fast machine too
HANG_MINUTES = 1.0
DAY_AHEAD = Path("day_ahead.so").absolute()
CLOCK = """
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
  int failed = syscall(SYS_clock_gettime, id, t);
  if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec += 86400;
  return failed;
}
time_t time(time_t *at) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return at ? (*at = t.tv_sec) : t.tv_sec;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  at->tv_sec = t.tv_sec;
  at->tv_usec = t.tv_nsec / 1000;
  return 0;
}
"""
TOO_MUCH = 0.5  # of this machine's memory: Ray kills a worker above it
PORT = 5001  # of moto's S3
AWS = {
    "AWS_ENDPOINT_URL": f"http://{{gateway}}:{PORT}",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "10",
}
BAD_ANSWERS = 0.2  # of S3's
OUTAGE_SECONDS = 120


class Fault(NamedTuple):
    """One row of the table."""

    said: str
    done: Callable[[Cluster, Path], Seconds]  # to a run whose rows go to that folder
    ray: Sequence[Mapping[str, str]] = ({}, {})  # what each worker's Ray is started with, besides RAY
    study: Sequence[str] = ()  # words of the command beside those of `disturbed.start`: an undisturbed run's too


def killed(name: str, signal: str, *more: str) -> Callable[[Cluster, Path], Seconds]:
    """One process of that name, on the first worker's machine that has one."""

    def disturb(cluster: Cluster) -> None:
        for machine in cluster.workers:
            if machine.exec("pgrep", "-f", name, check=False).strip():
                machine.exec("pkill", f"-{signal}", "-o", "-f", name)
                return
        raise SystemExit(f"no process {name} is at work")

    return lambda cluster, folder: run(cluster, folder, disturb, *more)


def cut(heal_after: float | None) -> Callable[[Cluster, Path], Seconds]:
    """The cable of a worker's machine, for good or for so many seconds."""

    def disturb(cluster: Cluster) -> None:
        cluster.workers[0].cut()
        if heal_after:
            threading.Timer(heal_after, cluster.workers[0].heal).start()

    return lambda cluster, folder: run(cluster, folder, disturb)


def too_much_memory(cluster: Cluster, folder: Path) -> Seconds:
    """A few trials of a perturbation take more memory than there is, however often they are tried."""
    seconds = run(
        cluster,
        folder,
        None,
        "perturbations=[original,reinit,rerandomize,reinit_signs,benchmarks.greedy:greedy]",
        expect=1,
    )
    failed = [status for status in statuses(folder).values() if status == "failed"]
    print(f"  ({len(failed)} trials that take too much memory are failed rows)", flush=True)
    return seconds


def killed_drivers(cluster: Cluster, folder: Path) -> Seconds:
    """The command, at random moments of its work; then it is left alone."""
    moments, kills = random.Random(0), 0
    while kills < DRIVER_KILLS:
        before = len(statuses(folder))
        process = start(cluster, folder, *MORE)
        while process.poll() is None and len(statuses(folder)) <= before:
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 1))
        if process.poll() is not None:
            raise SystemExit(f"the run ended after {kills} kills: give it more models")
        cluster.head.exec("pkill", "-KILL", "-f", "raylab.run")
        kills += 1
        process.communicate()
    return run(cluster, folder, None, *MORE)


def full_disk(cluster: Cluster, folder: Path) -> Seconds:
    """Of half the size that rows need; then there is more, and the same command is typed again."""
    folder.mkdir()
    half = size_of(folder.parent / "quiet/trials") // 2
    # Mounted on the head, as machines do not see what is mounted after they were started.
    cluster.head.exec("mount", "-t", "tmpfs", "-o", f"size={half}", "tmpfs", str(folder))
    process = start(cluster, folder)
    said, _ = process.communicate()
    assert process.returncode == 2 and "No space left" in said, said
    print(f"  ({said.strip().splitlines()[-1]})", flush=True)
    cluster.head.exec("mount", "-o", "remount,size=1g", str(folder))
    seconds = run(cluster, folder, None)
    cluster.head.exec("cp", "-r", str(folder), f"{folder}.kept")
    cluster.head.exec("umount", str(folder))
    shutil.rmtree(folder)
    Path(f"{folder}.kept").rename(folder)
    return seconds


def damaged(cluster: Cluster, folder: Path) -> Seconds:
    """A part is cut off in the middle, another has a byte changed; the command is typed again."""
    run(cluster, folder, None)
    first, second, *_ = sorted((folder / "trials").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    content = bytearray(second.read_bytes())
    content[len(content) // 3] ^= 0xFF
    second.write_bytes(content)
    return run(cluster, folder, None, notice="Set aside")


@contextmanager
def on_s3(cluster: Cluster, folder: Path) -> Iterator[tuple[Cloud, str, dict[str, str]]]:
    """S3, a URL of results there, and the environment that knows of it; in the end the folder has their parts."""
    url = f"s3://bucket/{folder.name}"
    with Cloud(cluster.gateway, PORT) as cloud:
        os.environ |= cloud.environment | {"AWS_MAX_ATTEMPTS": AWS["AWS_MAX_ATTEMPTS"]}
        cloud.bucket("bucket")
        yield cloud, url, {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
        cloud.disturb()
        subprocess.run(
            [sys.executable, "-c", "import sys; from raylab import places; from raylab.results import parts\n"
             "home = parts.trials(sys.argv[1])\nto = parts.trials(sys.argv[2])\n"
             "for name in home.names(): to.create(name, lambda file: file.write(home.read(name)))", url, str(folder)],
            check=True,
        )  # fmt: skip


def bad_s3(cluster: Cluster, folder: Path) -> Seconds:
    """One in five answers is that it is busy, or that something went wrong."""
    chance = random.Random(0)
    with on_s3(cluster, folder) as (cloud, url, environment):
        cloud.disturb("503", lambda *_: chance.random() < BAD_ANSWERS)
        return run(cluster, url, None, **environment)


def dead_s3(kind: str) -> Callable[[Cluster, Path], Seconds]:
    """It is of no use for longer than its library tries again, in the middle of the run. kind: of tests/cloud.py."""

    def done(cluster: Cluster, folder: Path) -> Seconds:
        with on_s3(cluster, folder) as (cloud, url, environment):

            def disturb(cluster: Cluster) -> None:
                cloud.disturb(kind, lambda *_: True)
                threading.Timer(OUTAGE_SECONDS, cloud.disturb).start()

            return run(cluster, url, disturb, notice="rows wait here", **environment)

    return done


def undisturbed(cluster: Cluster, folder: Path) -> Seconds:
    """Nothing but what its processes are started with."""
    return run(cluster, folder, None)


FAULTS = {
    "worker": Fault("a worker process killed", killed("^ray::work", "KILL")),
    "hang": Fault(
        f"a worker process stopped, deadline {HANG_MINUTES:g} min",
        killed("^ray::work", "STOP", f"cluster.deadline_minutes={HANG_MINUTES}"),
    ),
    "eigensolver": Fault("an eigensolver killed", killed("^ray::Measurer", "KILL")),
    "raylet": Fault("a raylet killed", killed("raylet/raylet", "KILL")),
    "cut": Fault("a node's link cut for good", cut(None)),
    "minute": Fault("a node's link cut for a minute", cut(60)),
    "memory": Fault("workers out of memory", too_much_memory, 2 * [{"RAY_memory_usage_threshold": str(TOO_MUCH)}]),
    "driver": Fault(f"the driver killed {DRIVER_KILLS} times", killed_drivers, study=MORE),
    "disk": Fault("the disk full", full_disk),
    "damage": Fault("a part cut off, another with a changed byte", damaged),
    "s3": Fault(f"results on S3, which refuses {BAD_ANSWERS:.0%} of requests", bad_s3, 2 * [AWS]),
    "outage": Fault(f"S3 refuses everything for {OUTAGE_SECONDS} s: rows wait", dead_s3("503"), 2 * [AWS]),
    "silence": Fault(f"S3 says nothing for {OUTAGE_SECONDS} s: rows wait", dead_s3("silent"), 2 * [AWS]),
    "clock": Fault("a worker's clock a day ahead", undisturbed, [{"LD_PRELOAD": str(DAY_AHEAD)}, {}]),
}


def main(names: list[str]) -> None:
    """Print the table."""
    print("| fault | noticed after, s | run ended after, s | rows | lost | twice | that differ |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch, _clock_ahead():
        quiet: dict[Sequence[str], dict[str, dict]] = {}
        for name in names or [*FAULTS]:
            fault, folder = FAULTS[name], Path(scratch) / name
            expected = quiet.get(fault.study) or quiet.setdefault(fault.study, _quiet(Path(scratch), fault.study))
            with cluster_of(fault.ray) as cluster:
                seconds = fault.done(cluster, folder)
            count, found = rows(folder)
            of = {trial: row for trial, row in found.items() if trial in expected}
            differ = sum(row != expected[trial] for trial, row in of.items())
            noticed = "-" if math.isnan(seconds.noticed) else f"{seconds.noticed:.1f}"
            print(
                f"| {fault.said} | {noticed} | {seconds.ended:.0f} | {count:,} | {len(expected) - len(of)} "
                f"| {count - len(found)} | {differ} |",
                flush=True,
            )
            if len(of) < len(expected) or count > len(found) or differ:
                raise SystemExit(f"{fault.said}: the rows are not those of the undisturbed run")


def _quiet(scratch: Path, study: Sequence[str]) -> dict[str, dict]:
    """The rows of a run to which nothing is done; a line for it."""
    folder = scratch / "-".join(["quiet", *study]).replace("=", "-")  # no sign of the grammar of overrides
    with cluster_of() as cluster:
        seconds = run(cluster, folder, None, *study)
    _, found = rows(folder)
    print(f"| none | - | {seconds.ended:.0f} (all of it) | {len(found):,} | - | - | - |", flush=True)
    return found


@contextmanager
def _clock_ahead() -> Iterator[None]:
    """A library to load before others, with which a process is a day ahead."""
    compile = ["cc", "-shared", "-fPIC", "-O", "-x", "c", "-", "-o", str(DAY_AHEAD)]
    subprocess.run(compile, input=CLOCK, text=True, check=True)
    try:
        yield
    finally:
        DAY_AHEAD.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
