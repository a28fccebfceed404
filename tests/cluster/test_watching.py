"""What is seen of a Ray session from outside: the words of its workers, and metrics where Ray serves them."""

import importlib.util
import time
import urllib.request
from collections import defaultdict

import pytest

from raylab.cluster.preflight import watched_session
from raylab.types import TrialResult
from tests import made_up

pytestmark = pytest.mark.cluster


def until(found):
    deadline = time.monotonic() + 60
    while not (value := found()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return value


def test_words_and_last_words_of_workers_go_where_they_are_sent_and_not_onto_the_terminal(capfd):
    import ray

    def speak():
        import logging
        import os
        import socket
        import warnings

        warnings.warn("a library warns", stacklevel=1)
        logging.getLogger("some.library").warning("and logs")
        os.write(2, b"from C\n")
        return f"{socket.gethostname()}-{os.getpid()}"

    def die():
        import os
        import sys

        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 11)

    said: dict[str, list[str]] = defaultdict(list)
    with watched_session("local", 1, 0.1, None, lambda name, lines: said[name].extend(lines), pytest.fail) as meter:
        name = ray.get(ray.remote(speak).remote())
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(ray.remote(max_retries=0)(die).remote())
        for words in ("a library warns", "and logs", "from C"):
            assert until(lambda words=words: any(words in line for line in said[name])), said
        assert until(lambda: any("last words" in line for lines in list(said.values()) for line in lines)), said
        for trial in made_up.trials(1)[:3]:
            meter(TrialResult(trial, "ok", {}, seconds=2.0))
        if importlib.util.find_spec("prometheus_client"):  # ray[default]: else Ray serves none
            node = ray.nodes()[0]
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            assert until(lambda: served(address) == (3.0, 6.0))
    printed = "".join(capfd.readouterr())
    assert "last words" not in printed and "warns" not in printed


def served(address):
    """The sums of our two counters, as Prometheus would read them."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    ours = ("ray_raylab_trials_total{", "ray_raylab_trial_seconds_total{")
    return tuple(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)) for name in ours)
