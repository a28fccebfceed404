"""The trials of models that are trained for it, on a worker: train them (or load them), then walk each once."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from raylab.errors import what_happened
from raylab.evaluate import PrefixWalk
from raylab.experiments.layer_weights import bias_column, buffers_column, layer_weights
from raylab.experiments.walk import LayerWalk, Values
from raylab.layers import LayerParameters
from raylab.train import State
from raylab.types import Array, LayerWeights, Outcome, Trial, TrialResult, generator

if TYPE_CHECKING:
    from raylab.experiments.perturb_layers import PerturbLayers


class Trained(NamedTuple):
    """A model's weights, and the seconds it took to train them (0 where they were loaded)."""

    state: State
    seconds: float


def run(experiment: PerturbLayers, models: Mapping[str, Sequence[Trial]]) -> Iterator[Outcome]:
    """Outcomes of trials by checkpoint. A model that cannot be trained fails its own trials and no others."""
    torch.set_num_threads(1)
    trained = _trained(experiment, list(models))
    for checkpoint, trials in models.items():
        result = trained[checkpoint]
        if isinstance(result, Exception):
            error = what_happened(result)
            yield from (Outcome(TrialResult(trial, "failed", {}, error=error)) for trial in trials)
        else:
            yield from _walk(experiment, checkpoint, result).outcomes(trials)


def _initial(experiment: PerturbLayers, checkpoint: str) -> Mapping[str, Array]:
    """theta_0, from a stream of its own: no re-randomised layer may be equal to it."""
    return experiment.trainee.initial(generator(experiment.seed, "initial", checkpoint))


def _trained(experiment: PerturbLayers, checkpoints: Sequence[str]) -> dict[str, Trained | Exception]:
    """The weights of each model: from its checkpoint where there is one, else trained and kept."""
    kept = {name: experiment.checkpoints.load(name) for name in checkpoints}
    models: dict[str, Trained | Exception] = {name: Trained(state, 0.0) for name, state in kept.items() if state}
    missing = [name for name in checkpoints if name not in models]
    if missing:
        start = time.perf_counter()
        states = _train(experiment, missing)
        seconds = (time.perf_counter() - start) / len(missing)
        for name, state in zip(missing, states, strict=True):
            models[name] = state if isinstance(state, Exception) else Trained(state, seconds)
            if not isinstance(state, Exception):
                experiment.checkpoints.save(name, state)
    return models


def _train(experiment: PerturbLayers, checkpoints: Sequence[str]) -> Sequence[State | Exception]:
    initials = [_initial(experiment, name) for name in checkpoints]
    shuffles = [generator(experiment.seed, "shuffle", name) for name in checkpoints]
    return experiment.trainee.train(initials, experiment.data, experiment.recipe, shuffles)


def _walk(experiment: PerturbLayers, checkpoint: str, trained: Trained) -> LayerWalk:
    """One model with the data that it is tested on."""
    data, trainee = experiment.data, experiment.trainee
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, initial = trainee.module(trained.state, device), _initial(experiment, checkpoint)

    def weights(parameters: LayerParameters) -> dict[str, LayerWeights]:
        return layer_weights(parameters, trained.state, initial, functools.partial(trainee.draw, parameters))

    return LayerWalk(
        PrefixWalk(model, data.test_x, data.test_y, experiment.batch_size, trainee.prepare(data, device)),
        experiment.layers,
        experiment.perturbations,
        weights,
        trained.state.__getitem__,
        options=experiment.options,
        similarity=experiment.similarity,
        about={"device": device, "depth": experiment.depth, "width": experiment.width},
        about_layer=functools.partial(_how, experiment, trained.state),
        about_baseline=lambda _: {"train_seconds": trained.seconds},
        seconds=trained.seconds,
    )


def _how(experiment: PerturbLayers, state: State, parameters: LayerParameters) -> Values:
    """What the layer was initialised with, and what is replaced with it."""
    law = str(experiment.trainee.draw(parameters, parameters.weight))
    return {"law": law, "bias": bias_column(parameters, state), "buffers": buffers_column(state)}
