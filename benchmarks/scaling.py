"""Strong scaling of the main job, and what the driver pays for every worker that it watches.

    python -m benchmarks.scaling

One study of a fixed size with 1, 2 and 4 workers, from the command to the report. Then the CPU time of one look of the
driver at so many tasks in flight, of which none is ready.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from raylab.results import statuses

STUDY = ("experiment=digits", "models=96", "progress=none")
WORKERS = (1, 2, 4)
WATCHED = (100, 1_000, 10_000)
LOOKS = 10


def seconds(folder: Path, *words: str) -> float:
    """Wall seconds of a command."""
    command = [sys.executable, "-m", "raylab.run", *STUDY, f"results={folder}", *words]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def scaling() -> None:
    """Print the table of workers."""
    print(f"| workers ({os.cpu_count()} cores) | wall, s | trials/s | against one worker |")
    print("|---:|---:|---:|---:|", flush=True)
    first = None
    with tempfile.TemporaryDirectory() as scratch:
        for workers in WORKERS:
            folder = Path(scratch) / str(workers)
            wall = seconds(folder, f"cluster.workers={workers}")
            first = first or wall
            trials = len(statuses(folder))
            print(f"| {workers} | {wall:.1f} | {trials / wall:.0f} | {first / wall:.2f} |", flush=True)


def _nothing() -> Iterator[None]:
    """What is never begun."""
    yield


def watching() -> None:
    """Print what one look costs: is anything ready, and then what else is, as the scheduler asks."""
    import ray

    from raylab.cluster.preflight import ray_session

    print("\n| tasks in flight | one look at all of them, ms of CPU |\n|---:|---:|", flush=True)
    # No node can hold it: it stays in flight.
    task = ray.remote(num_cpus=1000, num_returns="streaming")(_nothing)
    with ray_session("local", 1, 0.2):
        for count in WATCHED:
            flights = [task.remote() for _ in range(count)]
            began = time.process_time()
            for _ in range(LOOKS):
                ray.wait(flights, num_returns=1, timeout=0, fetch_local=False)
                ray.wait(flights, num_returns=count, timeout=0, fetch_local=False)
            print(f"| {count:,} | {1e3 * (time.process_time() - began) / LOOKS:.2f} |", flush=True)
            for flight in flights:
                ray.cancel(flight)


if __name__ == "__main__":
    scaling()
    watching()
