"""An experiment whose models are trained epoch by epoch: softmax regression on scikit-learn's digits.

Every epoch that is really trained is a line of <results>/trained.log: whether a search trained twice can be told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from raylab.errors import UserError
from raylab.experiments import checkpoints
from raylab.experiments.checkpoints import Checkpoints
from raylab.types import Group, Outcome, Recipe, Trial, TrialResult, digest, generator


@dataclass(frozen=True, kw_only=True)
class Slopes:
    name: str
    seed: int
    models: int
    recipe: Recipe
    pause: float  # seconds an epoch
    breaks: float  # learning rate from which on training raises
    checkpoints: Checkpoints
    columns: ClassVar[Mapping[str, type]] = {"epoch": int, "accuracy": float, "loss": float, "norm": float}
    identity: ClassVar[Mapping[str, str]] = {"training": "1"}
    skipped: ClassVar[Mapping[str, str]] = {}

    def trials(self) -> list[Trial]:
        return [trial for replicate in range(self.models) for trial in self._trials_of(replicate)]

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        return {"models": str(len({trial.checkpoint for trial in pending}))}

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        models: dict[str, list[Trial]] = {}
        for trial in pending:
            models.setdefault(trial.checkpoint, []).append(trial)
        return [tuple(trials) for trials in models.values()]

    def run(self, group: Group) -> Iterator[Outcome]:
        wanted = {(trial.draw, trial.layer): trial for trial in group}
        x, y, test_x, test_y = _digits()
        name, first = group[0].checkpoint, min(trial.draw for trial in group)
        kept = self.checkpoints.load(f"{name}-{first - 1}")
        weights, start = (kept["weights"], first) if kept else (np.zeros((64, 10)), 1)
        for epoch in range(start, self.recipe.epochs + 1):
            if self.recipe.learning_rate >= self.breaks:
                raise ArithmeticError("the slope is too steep")
            self._log(f"{name} {epoch}")
            time.sleep(self.pause)
            weights = self._epoch(weights, x, y, generator(self.seed, name, epoch))
            self.checkpoints.save(f"{name}-{epoch}", {"weights": weights})
            logits = test_x @ weights
            accuracy = float((logits.argmax(1) == test_y).mean())
            loss = float(-_log_softmax(logits)[np.arange(len(test_y)), test_y].mean())
            if (epoch, None) in wanted:
                values = {"epoch": epoch, "accuracy": accuracy, "loss": loss}
                yield Outcome(TrialResult(wanted[epoch, None], "ok", values))
            if (epoch, "fc") in wanted:
                yield Outcome(TrialResult(wanted[epoch, "fc"], "ok", {"epoch": epoch}), weights=weights)

    def release(self) -> None:
        pass

    def measure(self, outcomes: Sequence[Outcome]) -> list[TrialResult]:
        return [
            outcome.result
            if outcome.weights is None
            else replace(
                outcome.result, values={**outcome.result.values, "norm": float(np.linalg.norm(outcome.weights))}
            )
            for outcome in outcomes
        ]

    def _epoch(self, weights: Any, x: Any, y: Any, rng: np.random.Generator) -> Any:
        for rows in np.array_split(rng.permutation(len(y)), max(1, len(y) // self.recipe.batch_size)):
            p = np.exp(_log_softmax(x[rows] @ weights))
            p[np.arange(len(rows)), y[rows]] -= 1
            weights = weights - self.recipe.learning_rate / len(rows) * x[rows].T @ p
        return weights

    def _log(self, line: str) -> None:
        handle = os.open(self.checkpoints.place.path.parent / "trained.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)

    def _trials_of(self, replicate: int) -> Iterator[Trial]:
        checkpoint = digest([asdict(self.recipe), self.seed, replicate])
        for epoch in range(1, self.recipe.epochs + 1):
            for layer in (None, "fc"):
                yield Trial(self.name, "softmax", replicate, checkpoint, "d", layer, "original", epoch, self.seed, "m")


def build(config: Any) -> Slopes:
    if config.model.get("name") == "nobody":
        raise UserError("No model 'nobody'.")
    return Slopes(
        name=config.name,
        seed=config.seed,
        models=config.models,
        recipe=config.train,
        pause=config.model.get("pause", 0.0),
        breaks=config.model.get("breaks", 1e9),
        checkpoints=checkpoints.of(config.results),
    )


def _digits() -> tuple[Any, Any, Any, Any]:
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = found.data / 16, found.target
    return x[:1300], y[:1300], x[1300:], y[1300:]


def _log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
