"""The trials of one model, on a worker: its layers from first to last, each perturbed, evaluated and put back."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from torch import Tensor

from raylab import perturb
from raylab.errors import what_happened
from raylab.evaluate import Evaluation, PrefixWalk
from raylab.experiments.attempt import attempt
from raylab.layers import LayerParameters, size_columns
from raylab.similarity import SimilarityMeter
from raylab.types import (
    ORIGINAL,
    Array,
    LayerWeights,
    Outcome,
    Perturbation,
    SpectralOptions,
    Trial,
    TrialResult,
    Value,
)

Values = dict[str, Value]
STACK = 5  # draws evaluated at once: more are hardly faster (1.4 times at 32 tokens), fewer are made up to it


class LayerWalk:
    """A model whose layers are perturbed one at a time.

    weights: what perturbations get to see of a layer, "weight" first and then its bias. tensor: a trained parameter by
    its name. about: columns of every row; about_layer: of those about a layer; about_baseline: of the baseline's, which
    took `seconds` already.
    """

    def __init__(
        self,
        walk: PrefixWalk,
        layers: Sequence[LayerParameters],
        perturbations: Mapping[str, Perturbation],
        weights: Callable[[LayerParameters], dict[str, LayerWeights]],
        tensor: Callable[[str], Array],
        *,
        options: SpectralOptions,
        similarity: bool = False,
        values: Callable[[Evaluation], Values] | None = None,
        about: Mapping[str, Value] | None = None,
        about_layer: Callable[[LayerParameters], Values] | None = None,
        about_baseline: Callable[[Evaluation], Values] | None = None,
        seconds: float = 0.0,
    ) -> None:
        self._walk = walk
        self._layers = {parameters.layer.name: parameters for parameters in layers}
        self._perturbations = perturbations
        self._weights = weights
        self._tensor = tensor
        self._options = options
        self._similarity = similarity
        self._values_of = values or _accuracy_and_loss
        self._about = dict(about or {})
        self._about_layer = about_layer or (lambda parameters: {})
        self._about_baseline = about_baseline or (lambda evaluation: {})
        self._seconds = seconds

    def outcomes(self, trials: Sequence[Trial]) -> Iterator[Outcome]:
        """One outcome a trial: the baseline, the layers as they are, then those that are perturbed, in depth order."""
        yield from (attempt(trial, lambda t=trial: self._whole(t)) for trial in trials if trial.layer is None)
        by_layer: dict[str, list[Trial]] = {}
        for trial in trials:
            if trial.layer is not None and trial.perturbation == ORIGINAL:
                yield attempt(trial, lambda t=trial: self._original(t))
            elif trial.layer is not None:
                by_layer.setdefault(trial.layer, []).append(trial)
        for name in sorted(by_layer, key=lambda name: self._walk.depth(self._layers[name].names)):
            yield from self._of_layer(self._layers[name], by_layer[name])

    @functools.cached_property
    def _baseline(self) -> Evaluation:
        """The model as it is, from wherever the walk has come to."""
        return self._walk.evaluate()

    def _whole(self, trial: Trial) -> Outcome:
        values = self._values(self._baseline, None) | self._about_baseline(self._baseline)
        return Outcome(TrialResult(trial, "ok", values, seconds=self._seconds))

    def _original(self, trial: Trial) -> Outcome:
        """The model is the baseline's; what the row is for are the spectra of the layer."""
        parameters = self._layers[str(trial.layer)]
        trained = self._weights(parameters)["weight"].trained
        return Outcome(TrialResult(trial, "ok", self._values(self._baseline, parameters)), parameters.layer, trained)

    def _of_layer(self, parameters: LayerParameters, trials: Sequence[Trial]) -> Iterator[Outcome]:
        """The trials of one layer. One that cannot be reached fails its own trials and no other layer's."""
        try:
            if self._walk.depth(parameters.names) < self._walk.depth_reached:
                self._walk.rewind()
            self._walk.advance_to(parameters.names)
            weights = self._weights(parameters)
            originals = list(self._walk.outputs(parameters.layer.name)) if self._similarity else []
        except Exception as error:
            yield from _failed(trials, what_happened(error))
            return
        yield from self._perturbed(parameters, trials, weights, originals)

    def _perturbed(
        self,
        parameters: LayerParameters,
        trials: Sequence[Trial],
        weights: Mapping[str, LayerWeights],
        originals: Sequence[Tensor],
    ) -> Iterator[Outcome]:
        """Several draws at once where that pays; one after another where outputs are compared."""
        size = 1 if originals else min(STACK, self._walk.capacity(parameters.names))
        for stack, some in _stacks(trials, size).items():
            if len(stack) > 1:
                yield from self._together(stack, some, parameters, weights)
            else:
                yield from (
                    attempt(trial, lambda t=trial: self._alone(t, parameters, weights, originals)) for trial in some
                )

    def _together(
        self,
        stack: Sequence[Trial],
        wanted: Sequence[Trial],
        parameters: LayerParameters,
        weights: Mapping[str, LayerWeights],
    ) -> Iterator[Outcome]:
        """The outcomes of some draws of a stack, evaluated at once; one that cannot be drawn fails alone."""
        start = time.perf_counter()
        draws = {trial: self._attempted(trial, weights) for trial in stack}
        as_it_is = {leaf: each.trained for leaf, each in weights.items()}
        variants = (as_it_is if isinstance(draw, Exception) else draw for draw in draws.values())
        try:
            found = self._walk.evaluate_each([self._replaced(parameters, arrays) for arrays in variants])
        except RuntimeError:  # of torch: no memory, or a tensor of a shape that cannot be shared out among the draws
            found = None
        except Exception as error:
            yield from _failed(wanted, what_happened(error))
            return
        if found is None:  # only now: the exception holds the memory of the pass that has failed
            yield from (attempt(trial, lambda t=trial: self._alone(t, parameters, weights, ())) for trial in wanted)
            return
        seconds = (time.perf_counter() - start) / len(wanted)
        evaluations = dict(zip(stack, found, strict=True))
        for trial in wanted:
            done = functools.partial(self._evaluated, trial, parameters, draws[trial], evaluations[trial], seconds)
            yield attempt(trial, done)

    def _attempted(self, trial: Trial, weights: Mapping[str, LayerWeights]) -> dict[str, Array] | Exception:
        """The new parameters, or what went wrong."""
        try:
            return self._drawn(trial, weights)
        except Exception as error:
            return error

    def _evaluated(
        self,
        trial: Trial,
        parameters: LayerParameters,
        draw: dict[str, Array] | Exception,
        evaluation: Evaluation,
        seconds: float,
    ) -> Outcome:
        if isinstance(draw, Exception):
            raise draw
        result = TrialResult(trial, "ok", self._values(evaluation, parameters), seconds=seconds)
        return Outcome(result, parameters.layer, draw["weight"])

    def _alone(
        self,
        trial: Trial,
        parameters: LayerParameters,
        weights: Mapping[str, LayerWeights],
        originals: Sequence[Tensor],
    ) -> Outcome:
        """A layer with other weights: how the model fares, how far its output moves, and what is to be measured."""
        arrays = self._drawn(trial, weights)
        meter = SimilarityMeter() if originals else None
        watch = (parameters.layer.name, lambda k, output: meter.update(originals[k], output)) if meter else None
        with perturb.perturbed(self._walk.model, self._replaced(parameters, arrays)):
            values = self._values(self._walk.evaluate(watch), parameters)
        if meter:
            values |= asdict(meter.result())
        return Outcome(TrialResult(trial, "ok", values), parameters.layer, arrays["weight"])

    def _drawn(self, trial: Trial, weights: Mapping[str, LayerWeights]) -> dict[str, Array]:
        return perturb.perturb(self._perturbations[trial.perturbation], weights, trial.rng())

    def _replaced(self, parameters: LayerParameters, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The new parameters by their names in the model; where the layer is a part of a tensor, the tensor with it."""
        if parameters.part is None:
            return dict(zip(parameters.names, arrays.values(), strict=True))
        whole = np.array(self._tensor(parameters.weight), order="C")
        parameters.part.of(whole)[...] = arrays["weight"]
        return {parameters.weight: whole}

    def _values(self, evaluation: Evaluation, parameters: LayerParameters | None) -> Values:
        values = self._values_of(evaluation) | self._about
        if parameters is None:
            return values
        layer = parameters.layer
        place: Values = {"layer_index": layer.index, "kind": layer.kind}
        sizes = size_columns(layer, self._options.conv, self._options.groups)
        return values | place | sizes | self._about_layer(parameters)


def _stacks(trials: Sequence[Trial], size: int) -> dict[tuple[Trial, ...], list[Trial]]:
    """What is evaluated at once -> those of it that are asked for.

    A stack is full whichever of its draws are asked for or planned: in other company the last digits of a trial would
    be others, and a run that is resumed would not give what one in one go gives.
    """
    stacks: dict[tuple[Trial, ...], list[Trial]] = {}
    for trial in trials:
        first = trial.draw - trial.draw % size
        alone = trial.perturbation in perturb.DETERMINISTIC
        stack = (trial,) if alone else tuple(replace(trial, draw=first + k) for k in range(size))
        stacks.setdefault(stack, []).append(trial)
    return stacks


def _failed(trials: Sequence[Trial], error: str) -> Iterator[Outcome]:
    yield from (Outcome(TrialResult(trial, "failed", {}, error=error)) for trial in trials)


def _accuracy_and_loss(evaluation: Evaluation) -> Values:
    return {"accuracy": evaluation.accuracy, "loss": evaluation.loss, "num_samples": evaluation.num_samples}
