"""What is seen of workers from outside while Ray is up: their logs, Prometheus metrics, the dashboard's link."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray._private.ray_logging import global_worker_stdstream_dispatcher as streams

from raylab.types import TrialResult

Write = Callable[[str, Sequence[str]], None]
OURS, RAYS = "raylab", "ray_print_logs"  # handlers of what workers print


@contextmanager
def logs(write: Write) -> Iterator[None]:
    """What this run's workers print, on whatever node, goes to `write(HOST-PID, lines)` instead of onto the terminal.

    Ray ships it, the last words of a worker that crashed included. For this it must have been started with
    log_to_driver=True; it offers no public way to take the lines but from the terminal.
    """
    hosts: dict[str, str] = {}

    def take(data: dict[str, Any], **options: Any) -> None:
        if data["pid"] == "autoscaler":  # its state, every few seconds
            return
        address = data.get("ip", "")
        if address not in hosts:
            with suppress(Exception):  # in a thread of Ray's, which an error would end: then it has its address only
                hosts.update({node["NodeManagerAddress"]: node["NodeManagerHostname"] for node in ray.nodes()})
        write(f"{hosts.get(address, address) or 'ray'}-{data['pid']}", data["lines"])

    prints = ray_worker.print_to_stdstream
    streams.remove_handler(RAYS)
    streams.add_handler(OURS, take)
    ray_worker.print_to_stdstream = take  # what raylets say, such as that a worker died
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = prints
        streams.remove_handler(OURS)


def meter() -> Callable[[TrialResult], None]:
    """Counts results in Ray's own Prometheus metrics, which the node of the driver serves.

    ray_raylab_trials_total and ray_raylab_trial_seconds_total, by experiment, perturbation and status. Nothing is
    served where ray[default] is not installed.
    """
    from ray.util.metrics import Counter

    names = ("experiment", "perturbation", "status")
    trials = Counter("raylab_trials_total", "Trials that this run has finished, by status.", names)
    seconds = Counter("raylab_trial_seconds_total", "Seconds of work of those trials, over all workers.", names)

    def count(result: TrialResult) -> None:
        tags = {
            "experiment": result.trial.experiment,
            "perturbation": result.trial.perturbation,
            "status": result.status,
        }
        trials.inc(1, tags)
        if result.seconds > 0:
            seconds.inc(result.seconds, tags)

    return count


def dashboard() -> str | None:
    """The address of Ray's dashboard; None where there is none."""
    url = ray_worker.get_dashboard_url()
    return f"http://{url}" if url else None
