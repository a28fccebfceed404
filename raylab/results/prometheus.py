"""metrics.prom of a results folder: trials and seconds of the run at work, in Prometheus's text format.

For node_exporter's textfile collector (`--collector.textfile.directory`), of any run, with Ray or without. What Ray
serves itself, as ray_raylab_trials_total and so on, is raylab.cluster.watching's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from raylab import places, redact
from raylab.errors import UserError
from raylab.results.parts import Where
from raylab.types import TrialResult

FILE = "metrics.prom"
TRIALS, SECONDS = "raylab_trials_total", "raylab_trial_seconds_total"
HELP = {
    TRIALS: "Trials that this run has finished, by status.",
    SECONDS: "Seconds of work of those trials, over all workers.",
}
_GAUGES = {
    "total": ("raylab_trials_planned", "Trials of the study."),
    "done": ("raylab_trials_done", "Those that have a row, of earlier runs too."),
    "workers": ("raylab_workers", "Workers at a time."),
    "elapsed": ("raylab_elapsed_seconds", "Seconds since this run began."),
    "remaining": ("raylab_remaining_seconds", "Seconds to go, as far as can be told."),
}


class Labels(NamedTuple):
    """What is counted apart."""

    experiment: str
    perturbation: str
    status: str


def labels(result: TrialResult) -> Labels:
    """Those of a result."""
    return Labels(result.trial.experiment, result.trial.perturbation, result.status)


def write(
    folder: Where, counts: Mapping[Labels, int], seconds: Mapping[Labels, float], numbers: Mapping[str, Any]
) -> None:
    """Put the file into a folder, whole or not at all. A disk that refuses is told by the rows."""
    lines: list[str] = []
    for name, values in ((TRIALS, counts), (SECONDS, seconds)):
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} counter"]
        lines += [f"{name}{{{_written(key)}}} {_number(value)}" for key, value in values.items()]
    for key, (name, text) in _GAUGES.items():
        if numbers.get(key) is not None:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {_number(numbers[key])}"]
    text = (redact.text("\n".join(lines)) + "\n").encode()
    with contextlib.suppress(OSError, UserError):
        places.at(folder).replace(FILE, lambda file: file.write(text))


def _written(key: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in key._asdict().items())


def _number(value: float) -> str:
    """With all its digits: `rate()` over a counter that is rounded to six of them is 0, and then far too much."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
