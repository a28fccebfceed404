"""Trials a second and the driver's memory, for many tiny trials: the engine, the rows and their commits, nothing else.

    python -m benchmarks.throughput 10000 100000 1000000
    python -m benchmarks.throughput alone 20000 # each trial in a message of its own, as those of .1 s and more come
    python -m benchmarks.throughput peers      # what Ray offers: a task a trial, its ActorPool; neither writes a row

A trial draws one number and is a row of 39 columns. Two workers; one process a size, so that peaks are its own. CPU
seconds are those of the driver and of all its workers, so that they can be read on a machine that is busy: the rate on
two cores is at most two divided by all of them, and one divided by the driver's. Memory is the driver's resident set:
before the trials are listed, when they are, and at its peak, which is to be flat but for what is kept a trial: the
trial itself (listed by the experiment), its id and its status (held by the sink, so that a second row is dropped).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.sweep_memory import family
from raylab.types import Group, Outcome, Trial, TrialResult

A_GROUP = 10
PEERS = 10_000
MB = 1024**2


@dataclass
class Tiny:
    """Trials that take no time."""

    count: int
    columns: ClassVar[Mapping[str, type]] = {"x": float}

    def trials(self) -> list[Trial]:
        return [Trial("tiny", "none", i, "c", "d", "fc", "rerandomize", 0, 0, "m") for i in range(self.count)]

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        return [tuple(pending[i : i + A_GROUP]) for i in range(0, len(pending), A_GROUP)]

    def costs(self, groups: Sequence[Group]) -> list[float]:
        return [0.0] * len(groups)

    def run(self, group: Group) -> Iterator[Outcome]:
        for trial in group:
            yield Outcome(TrialResult(trial, "ok", {"x": float(trial.replicate)}, host="here"))

    def release(self) -> None:
        pass

    def measure(self, outcomes: Sequence[Outcome]) -> list[TrialResult]:
        return [outcome.result for outcome in outcomes]


def resident() -> float:
    """MB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MB


def workers_cpu() -> float:
    """CPU seconds of this process's family but itself: Ray's daemons and workers."""
    ticks = 0
    for process in family(os.getpid())[1:]:
        try:
            ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def one_by_one(experiment: Tiny, groups: Sequence[Group], *, here: bool, first: bool, last: bool) -> Iterator[object]:
    """A worker that sends each outcome by itself, as one does whose trials take a tenth of a second or more."""
    from raylab.cluster.worker import work

    yield from work(experiment, groups, here=here, first=False, last=last)


def measure(count: int, alone: bool = False) -> None:
    from raylab.cluster.preflight import ray_session
    from raylab.results import load, schema, sink

    experiment = Tiny(count)
    with ray_session("local", 2, 0.3), tempfile.TemporaryDirectory() as folder:
        import ray

        from raylab.cluster.scheduler import Scheduler

        scheduler = Scheduler(experiment, eigen_actors=1)
        if alone:
            scheduler._task = ray.remote(one_by_one)
        before = resident()
        trials = experiment.trials()
        listed = resident()
        wall, mine, theirs = time.perf_counter(), time.process_time(), workers_cpu()
        sizes = []
        with sink.ParquetSink(folder, schema.schema(Tiny.columns), {}, 1000, 2.0) as rows:
            done = rows.done()
            for batch in scheduler.stream([trial for trial in trials if trial.id not in done]):
                for result in batch:
                    rows.write(result)
                rows.tick()
                sizes.append(resident())
        wall, mine, theirs = time.perf_counter() - wall, time.process_time() - mine, workers_cpu() - theirs
        assert load(folder, ["trial_id"]).num_rows == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {count:,} | {count / wall:,.0f} | {1e6 * mine / count:,.0f} | {1e6 * theirs / count:,.0f} | "
        f"{min(count / mine, 2 * count / (mine + theirs)):,.0f} | {before:,.0f} | {listed - before:,.0f} | "
        f"{max(sizes) - listed:,.0f} | {peak:,.0f} |",
        flush=True,
    )


def peers() -> None:
    """PEERS tiny trials as Ray's manual has them, nothing committed."""
    from raylab.cluster.preflight import ray_session

    with ray_session("local", 2, 0.3):
        import ray
        from ray.util import ActorPool

        def tiny(number: int) -> float:
            return float(number)

        class Worker:
            def tiny(self, number: int) -> float:
                return float(number)

        task, actor = ray.remote(tiny), ray.remote(Worker)

        def rate(name: str, run: Callable[[range], object]) -> None:
            run(range(100))  # then its workers are there
            began = time.perf_counter()
            run(range(PEERS))
            print(f"{name}: {PEERS / (time.perf_counter() - began):,.0f} a second", flush=True)

        rate("a task a trial", lambda numbers: ray.get([task.remote(number) for number in numbers]))
        pool = ActorPool([actor.remote() for _ in range(2)])
        rate("ActorPool", lambda numbers: list(pool.map(lambda worker, number: worker.tiny.remote(number), numbers)))


def main(counts: list[str]) -> None:
    if counts == ["peers"]:
        peers()
        return
    if len(counts) == 1 or counts[0] == "alone":
        measure(int(counts[-1]), alone=counts[0] == "alone")
        return
    print(
        "| trials | rows/s, wall | driver, CPU µs a trial | Ray and workers, CPU µs a trial | rows/s on two free cores "
        "| driver before, MB | list of trials, MB | while they run, MB more | peak, MB |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for count in counts:
        subprocess.run([sys.executable, "-m", "benchmarks.throughput", count], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
