"""The trials of a model, on a worker: train it (or load it), then walk it once from its first layer to its last."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

import torch

from raylab import perturb
from raylab.evaluate import Evaluation, PrefixWalk
from raylab.experiments.attempt import attempt
from raylab.layers import matrices_shape
from raylab.models.kernels import as_tensor
from raylab.similarity import SimilarityMeter
from raylab.train import State, train, train_stacked
from raylab.types import ORIGINAL, Array, Layer, LayerWeights, Outcome, Trial, TrialResult, Value, generator

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
            yield from _Walk(experiment, checkpoint, result).outcomes(trials)


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


class _Walk:
    """One model, its data, and the boundary up to which its activations are known."""

    def __init__(self, experiment: PerturbLayers, checkpoint: str, trained: Trained) -> None:
        data = experiment.data
        self._experiment = experiment
        self._trained = trained
        self._initial = _initial(experiment, checkpoint)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = experiment.make(inputs=data.inputs, outputs=data.classes).load(trained.state).to(self._device)
        x, y = as_tensor(data.test_x), as_tensor(data.test_y)
        self._walk = PrefixWalk(self._model, x, y, experiment.batch_size)
        self._baseline = self._walk.evaluate()

    def outcomes(self, trials: Sequence[Trial]) -> Iterator[Outcome]:
        """One outcome a trial, in depth order."""
        yield from (attempt(trial, lambda t=trial: self._whole(t)) for trial in trials if trial.layer is None)
        for layer in self._experiment.layers:
            mine = [trial for trial in trials if trial.layer == layer.name]
            if mine:
                self._walk.advance_to(self._model.stage_of(layer.name))
                module = self._model.get_submodule(layer.name)
                originals = list(self._walk.outputs(module)) if self._experiment.similarity else []
                for trial in mine:
                    yield attempt(trial, lambda t=trial, la=layer, o=originals: self._perturbed(t, la, o))

    def _whole(self, trial: Trial) -> Outcome:
        """The baseline, which carries the seconds of training."""
        seconds = self._trained.seconds
        values = self._values(self._baseline, None) | {"train_seconds": seconds}
        return Outcome(TrialResult(trial, "ok", values, seconds=seconds))

    def _perturbed(self, trial: Trial, layer: Layer, originals: Sequence[torch.Tensor]) -> Outcome:
        """A layer with other weights: how the model fares, how far the layer's output moves, what is to be measured."""
        perturbation = self._experiment.perturbations[trial.perturbation]
        arrays = perturb.perturb(perturbation, self._parameters(layer), trial.rng())
        if trial.perturbation == ORIGINAL:
            values = self._values(self._baseline, layer)
        else:
            values = self._evaluate(layer, arrays, originals)
        return Outcome(TrialResult(trial, "ok", values), layer, arrays["weight"])

    def _evaluate(
        self, layer: Layer, arrays: Mapping[str, Array], originals: Sequence[torch.Tensor]
    ) -> dict[str, Value]:
        meter = SimilarityMeter() if originals else None
        with perturb.perturbed(self._model, layer.name, arrays) as module:
            watch = (module, lambda k, output: meter.update(originals[k], output)) if meter else None
            values = self._values(self._walk.evaluate(watch), layer)
        return values | asdict(meter.result()) if meter else values

    def _values(self, evaluation: Evaluation, layer: Layer | None) -> dict[str, Value]:
        values: dict[str, Value] = {
            "accuracy": evaluation.accuracy,
            "loss": evaluation.loss,
            "num_samples": evaluation.num_samples,
            "device": self._device,
        }
        if layer is not None:
            options = self._experiment.options
            _, N, M = matrices_shape(layer, options.conv, options.groups)
            values |= {"layer_index": layer.index, "kind": layer.kind, "N": N, "M": M}
        return values

    def _parameters(self, layer: Layer) -> dict[str, LayerWeights]:
        """Every parameter tensor of a layer: its weight and its bias are replaced together."""
        # In theta_0's order, which never changes: a checkpoint's is alphabetical, and perturbations draw in order.
        names = [name for name in self._initial if name.rpartition(".")[0] == layer.name]
        return {
            (parameter := name.rpartition(".")[2]): LayerWeights(
                layer,
                parameter,
                self._trained.state[name],
                self._initial[name],
                self._model.initial_law(layer, parameter),
            )
            for name in names
        }
