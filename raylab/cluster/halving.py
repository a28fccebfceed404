"""ASHA for Ray Tune that goes on where it was broken off."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler

from raylab.cluster.reporting import EPOCH


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving that keeps what it has seen in a file.

    Tune's own state leaves the scheduler out, and after a restore the rungs would be empty, so that late samples are
    never compared with early ones.
    """

    def __init__(self, memory: str, **options: Any) -> None:
        super().__init__(**options)
        self._memory = Path(memory)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """By these it compares; what the file has of earlier processes is its own from now on."""
        taken = super().set_search_properties(metric, mode, **spec)
        lines = self._memory.read_text().splitlines() if self._memory.exists() else []
        for line in lines:
            if line.endswith("}"):  # the last one may be cut off
                seen = json.loads(line)
                trial: Any = SimpleNamespace(trial_id=seen["trial"])
                self._brackets[0].on_result(trial, seen["epoch"], self._metric_op * seen["value"])
        return taken

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Kept, where it is of an epoch, and decided on."""
        if EPOCH in result:
            seen = {"trial": trial.trial_id, "epoch": result[EPOCH], "value": result[str(self._metric)]}
            with self._memory.open("a") as file:
                file.write(json.dumps(seen) + "\n")
        return super().on_trial_result(tune_controller, trial, result)
