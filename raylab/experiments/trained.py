"""The trials of models that are trained for it, on a worker: train them (or load them), then walk each once."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from raylab.evaluate import PrefixWalk
from raylab.experiments.walk import LayerWalk
from raylab.layers import LayerParameters
from raylab.models.kernels import take_the_fast_road
from raylab.train import State, train, train_stacked
from raylab.types import LayerWeights, Outcome, Trial, TrialResult, generator

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
            error = "".join(traceback.format_exception(result))
            yield from (Outcome(TrialResult(trial, "failed", {}, error=error)) for trial in trials)
        else:
            yield from _walk(experiment, checkpoint, result).outcomes(trials)


def _initial(experiment: PerturbLayers, checkpoint: str) -> State:
    """theta_0, from a stream of its own: no re-randomised layer may be equal to it."""
    model = experiment.make(inputs=experiment.data.inputs, outputs=experiment.data.classes)
    return model.initial_state(generator(experiment.seed, "initial", checkpoint))


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
    if len(checkpoints) > 1 and torch.cuda.is_available():
        return train_stacked(initials, experiment.data, experiment.recipe, shuffles)
    states: list[State | Exception] = []
    for initial, shuffle in zip(initials, shuffles, strict=True):
        try:
            states.append(train(initial, experiment.data, experiment.recipe, shuffle))
        except ArithmeticError as error:
            states.append(error)
    return states


def _walk(experiment: PerturbLayers, checkpoint: str, trained: Trained) -> LayerWalk:
    """One model with the data that it is tested on."""
    data = experiment.data
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = experiment.make(inputs=data.inputs, outputs=data.classes).load(trained.state).to(device)
    if device == "cpu":
        take_the_fast_road(model)
    initial = _initial(experiment, checkpoint)

    def weights(parameters: LayerParameters) -> dict[str, LayerWeights]:
        layer = parameters.layer
        return {
            (leaf := name.rpartition(".")[2]): LayerWeights(
                layer, leaf, trained.state[name], initial[name], model.initial_law(layer, leaf)
            )
            for name in parameters.names
        }

    return LayerWalk(
        PrefixWalk(model, data.test_x, data.test_y, experiment.batch_size),
        experiment.layers,
        experiment.perturbations,
        weights,
        trained.state.__getitem__,
        options=experiment.options,
        similarity=experiment.similarity,
        about={"device": device},
        about_baseline=lambda _: {"train_seconds": trained.seconds},
        seconds=trained.seconds,
    )
