"""A small experiment with real work and real ways to fail, importable by Ray workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from raylab.types import Group, Outcome, Trial, TrialResult


@dataclass
class Toy:
    """`count` trials in groups of `size`; the value of a trial is the top singular value of its own random matrix."""

    count: int = 12
    size: int = 4
    seconds: float = 0.0
    raises_in: int | None = None  # the replicate whose group raises half way
    dies_once_in: int | None = None  # the replicate whose worker is killed the first time
    hangs_once_in: int | None = None  # the replicate whose worker sleeps for ever the first time
    kills: tuple[int, str] | None = None  # replicate and layer that no worker survives
    slow: tuple[int, float] | None = None  # a replicate that costs more than all others, and its seconds of silence
    fails_at_once: int | None = None  # a replicate that costs as much, and of which nothing comes but failed rows
    measurer_dies_once: bool = False
    measurer_hangs_once: bool = False
    scratch: str = "."
    columns: ClassVar = {"sigma_max": float}

    def trials(self) -> list[Trial]:
        return [
            Trial("toy", "toy", i // self.size, "c", "d", f"fc{i % self.size}", "rerandomize", 0, 0, "m")
            for i in range(self.count)
        ]

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        by_model: dict[int, list[Trial]] = {}
        for trial in pending:
            by_model.setdefault(trial.replicate, []).append(trial)
        return [tuple(group) for group in by_model.values()]

    def costs(self, groups: Sequence[Group]) -> list[float]:
        dear = {self.slow and self.slow[0], self.fails_at_once}
        return [1e9 if group[0].replicate in dear else 1.0 for group in groups]

    def run(self, group: Group) -> Iterator[Outcome]:
        if group[0].replicate == self.fails_at_once:
            raise ArithmeticError("it diverged")
        if self.slow and group[0].replicate == self.slow[0]:
            with (Path(self.scratch) / "slow.begun").open("a") as file:
                file.write("x")
            time.sleep(self.slow[1])
        for position, trial in enumerate(group):
            if (trial.replicate, trial.layer) == self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            if position == len(group) // 2:
                self._misbehave(trial.replicate)
            time.sleep(self.seconds)
            yield Outcome(TrialResult(trial, "ok", {}), weights=trial.rng().standard_normal((30, 20)))

    def release(self) -> None:
        pass

    def measure(self, outcomes: Sequence[Outcome]) -> list[TrialResult]:
        if self.measurer_dies_once:
            self._once("measurer", _die)
        if self.measurer_hangs_once:
            self._once("measurer", _hang)
        return [
            replace(outcome.result, values={"sigma_max": float(np.linalg.svd(outcome.weights)[1][0])})
            for outcome in outcomes
            if outcome.weights is not None
        ]

    def _misbehave(self, replicate: int) -> None:
        if replicate == self.raises_in:
            raise RuntimeError("no such luck")
        if replicate == self.dies_once_in:
            self._once("worker", _die)
        if replicate == self.hangs_once_in:
            self._once("worker", _hang)

    def _once(self, who: str, what: Callable[[], None]) -> None:
        mark = Path(self.scratch) / f"{who}.disturbed"
        if not mark.exists():
            mark.touch()
            what()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    time.sleep(3600)
