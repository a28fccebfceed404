"""The trials of one model that is trained with alpha fixed, on a worker: epoch by epoch, each evaluated."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from raylab import spectral
from raylab.errors import what_happened
from raylab.evaluate import Evaluation
from raylab.evaluate.score import score
from raylab.experiments.attempt import attempt
from raylab.layers import size_columns
from raylab.models.kernels import as_tensor
from raylab.train import Epoch, relu_network, train_epochs
from raylab.types import Outcome, Trial, TrialResult, Value, generator

if TYPE_CHECKING:
    from raylab.experiments.alpha_fixed import AlphaFixed, FixedModel

# Checkpoints of a model that is being trained: rows reach the disk an epoch or two after the one that is at work, and
# what is missing after a kill starts from the checkpoint before it. Of one that is trained the last two are kept.
KEPT = 4


def run(experiment: AlphaFixed, trials: Sequence[Trial]) -> Iterator[Outcome]:
    """Outcomes of the trials of one model, the whole before its layers. Epochs that cannot be trained are failed."""
    torch.set_num_threads(1)
    model = experiment.places[trials[0].checkpoint][0]
    pending: dict[int, list[Trial]] = {}
    for trial in trials:
        pending.setdefault(experiment.places[trial.checkpoint][1], []).append(trial)
    try:
        yield from _trained(experiment, model, pending)
    except Exception as error:
        said = what_happened(error)
        for trial in (trial for of_epoch in pending.values() for trial in of_epoch):
            yield Outcome(TrialResult(trial, "failed", {}, error=said))
    finally:
        _keep_newest(experiment, model)


def _trained(experiment: AlphaFixed, model: FixedModel, pending: dict[int, list[Trial]]) -> Iterator[Outcome]:
    """Outcomes as epochs end. What is still in `pending` when it raises has none."""
    start = time.perf_counter()
    for epoch in _epochs(experiment, model, first=min(pending), last=max(pending)):
        seconds = time.perf_counter() - start
        if epoch.number:
            experiment.checkpoints.save(model.checkpoint(epoch.number), epoch.tensors)
            experiment.checkpoints.remove(model.checkpoint(epoch.number - KEPT))
        yield from _outcomes(experiment, model, epoch, pending.pop(epoch.number, []), seconds)
        start = time.perf_counter()


def _epochs(experiment: AlphaFixed, model: FixedModel, first: int, last: int) -> Iterator[Epoch]:
    """From the newest checkpoint before the first epoch that is asked for, to the last."""
    drawn, seed = experiment.drawn, experiment.seed
    made_of = drawn.checkpoint(model.choice)  # the same order of samples whatever the retraction
    newest = experiment.newest(model, first - 1, experiment.checkpoints.kept() if first > 1 else set())
    tensors = experiment.checkpoints.load(model.checkpoint(newest)) if newest else None
    return train_epochs(
        drawn.state(model.choice),
        drawn.data,
        replace(experiment.recipe, epochs=last),
        experiment.retractions[model.retraction],
        lambda epoch: generator(seed, "shuffle", made_of, epoch),
        every=experiment.options_of_retraction.every,
        resume=(newest, tensors) if tensors else None,
    )


def _outcomes(
    experiment: AlphaFixed, model: FixedModel, epoch: Epoch, trials: Sequence[Trial], seconds: float
) -> Iterator[Outcome]:
    """Those of one epoch, which took so many seconds."""
    if not trials:
        return
    start = time.perf_counter()
    evaluation = _evaluated(experiment, epoch)
    shared = _about(model, epoch, evaluation)
    evaluating = time.perf_counter() - start
    for trial in sorted(trials, key=lambda trial: trial.layer is not None):
        if trial.layer is None:
            off, loss = _or_none(max(epoch.off.values())), _or_none(epoch.train_loss)
            values = shared | {"train_loss": loss, "train_seconds": seconds, "orthonormality": off}
            result = TrialResult(trial, "ok", values, seconds=seconds + evaluating)
            yield attempt(trial, lambda r=result: Outcome(r))
        else:
            yield attempt(trial, lambda t=trial: _of_layer(experiment, model, epoch, t, shared))


def _evaluated(experiment: AlphaFixed, epoch: Epoch) -> Evaluation:
    """The very weights that are measured, in float64."""
    data = experiment.drawn.data
    return score(as_tensor(relu_network(epoch.state, data.test_x)), as_tensor(data.test_y))


def _about(model: FixedModel, epoch: Epoch, evaluation: Evaluation) -> dict[str, Value]:
    """What all rows of an epoch say."""
    return {
        "epoch": epoch.number,
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "num_samples": evaluation.num_samples,
        "alpha_range": model.choice.alpha_range,
        "retraction": model.retraction,
        "biases": model.choice.biases,
        "device": "cpu",
    }


def _of_layer(
    experiment: AlphaFixed, model: FixedModel, epoch: Epoch, trial: Trial, shared: Mapping[str, Value]
) -> Outcome:
    name = f"{trial.layer}.weight"
    layer, options = experiment.drawn.layers[str(trial.layer)], experiment.options
    unrestored = spectral.measure(epoch.unrestored[name], layer, spectral.resolve(["power_law"]), options)
    values = {
        **shared,
        "layer_index": layer.index,
        "kind": layer.kind,
        "pool_draw": model.choice.draws[layer.name],
        "orthonormality": _or_none(epoch.off[name]),
        "alpha_float32": unrestored["alpha"],
        **size_columns(layer, options.conv, options.groups),
    }
    return Outcome(TrialResult(trial, "ok", values), layer, epoch.state[name])


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def _keep_newest(experiment: AlphaFixed, model: FixedModel) -> None:
    """Of a model that is trained the last checkpoint, and the one before it: the rows of the last epoch may be lost."""
    kept = experiment.checkpoints.kept()
    newest = experiment.newest(model, experiment.recipe.epochs, kept)
    for checkpoint in kept & {model.checkpoint(epoch) for epoch in range(1, newest - 1)}:
        experiment.checkpoints.remove(checkpoint)
