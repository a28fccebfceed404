"""The trials of a given model, on a worker, which holds the model and the activations it has come to between groups."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from raylab.evaluate import Evaluation, PrefixWalk
from raylab.experiments.layer_weights import FreshDraw, bias_column, buffers_column, layer_weights
from raylab.experiments.walk import LayerWalk, Values
from raylab.layers import LayerParameters
from raylab.models.inputs import normalising
from raylab.models.kernels import take_the_fast_road
from raylab.types import Group, LayerWeights, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from raylab.data import EvaluationData
    from raylab.experiments.perturb_pretrained import PerturbPretrained

DTYPES = {"float32": None, "tf32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_held = threading.local()  # the walk that this worker is on: one, since a model and its activations are large


def run(experiment: PerturbPretrained, group: Group) -> Iterator[Outcome]:
    """Outcomes of trials of one model."""
    torch.set_num_threads(1)
    yield from _walk(experiment).outcomes(group)


def _walk(experiment: PerturbPretrained) -> LayerWalk:
    """The walk that the worker's last group has left, if it was of this experiment, else a new one."""
    key = (
        *sorted(experiment.identity.items()),
        *(experiment.name, experiment.layers, tuple(experiment.perturbations)),
        *(experiment.batch_size, experiment.precision, dataclasses.astuple(experiment.activations)),
    )
    if getattr(_held, "key", None) != key:
        release()  # before there is another, which may come to nothing
        _held.walk, _held.key = _begin(experiment), key
    return _held.walk


def release() -> None:
    """Let go of the walk that this worker is on."""
    _held.walk = _held.key = None


def _begin(experiment: PerturbPretrained) -> LayerWalk:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = {"device": device, "origin": experiment.network.origin, "precision": experiment.precision}
    return LayerWalk(
        _prefix_walk(experiment, device, experiment.precision),
        experiment.layers,
        experiment.perturbations,
        functools.partial(_weights, experiment),
        experiment.network.tensors.__getitem__,
        options=experiment.options,
        values=functools.partial(_values, experiment.data),
        about={**about, **experiment.data.protocol},
        about_layer=functools.partial(_how, experiment),
        about_baseline=functools.partial(_error, experiment, device),
    )


def _prefix_walk(experiment: PerturbPretrained, device: str, precision: str) -> PrefixWalk:
    """The model and its data in a precision."""
    _multiply_in(precision)
    data, dtype = experiment.data, DTYPES[precision]
    module = experiment.network.module(device, dtype)
    if device == "cpu":
        take_the_fast_road(module)
    return PrefixWalk(
        module.to(memory_format=torch.channels_last) if data.task == "image" else module,
        data.x,
        data.y,
        experiment.batch_size,
        _prepare(data, device, dtype or torch.float32),
        experiment.activations,
    )


def _multiply_in(precision: str) -> None:
    """torch's default for convolutions is TensorFloat-32: here only if asked. The switches are the process's."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def _prepare(data: EvaluationData, device: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Of a batch as it is stored what the model takes."""
    if data.task == "text":
        return lambda ids: ids.long()
    return normalising(data.mean, data.std, device, dtype)


def _values(data: EvaluationData, evaluation: Evaluation) -> Values:
    """What one evaluation says. Perplexity is that of tokens, or of words where the protocol says so."""
    values: Values = {
        "accuracy": evaluation.accuracy,
        "top5": evaluation.top5,
        "loss": evaluation.loss,
        "num_samples": evaluation.num_samples,
    }
    if data.task == "text":
        per_word = data.protocol.get("normaliser") == "word"
        values["perplexity"] = evaluation.perplexity(data.words if per_word else None)
    return values


def _error(experiment: PerturbPretrained, device: str, evaluation: Evaluation) -> Values:
    """What a lower precision costs: the loss of the model as it is, less that in float32."""
    if experiment.precision == "float32":
        return {}
    try:
        exact = _prefix_walk(experiment, device, "float32").evaluate()
    finally:
        _multiply_in(experiment.precision)
    return {"loss_error": evaluation.loss - exact.loss}


def _weights(experiment: PerturbPretrained, parameters: LayerParameters) -> dict[str, LayerWeights]:
    """The trained tensors of a layer, theta_0 where it is known, and the law that it was drawn from."""
    network = experiment.network

    def draw(name: str) -> FreshDraw:
        return FreshDraw(experiment.laws[name], network.tensors[name].shape, parameters)

    return layer_weights(parameters, network.tensors, network.initial, draw)


def _how(experiment: PerturbPretrained, parameters: LayerParameters) -> Values:
    """What is replaced with a layer, by what, and what is not."""
    law = experiment.laws.get(parameters.weight)
    return {
        "law": None if law is None else str(law),
        "bias": bias_column(parameters, experiment.network.tensors),
        "buffers": buffers_column(experiment.network.tensors),
        "tied": ", ".join(parameters.tied) or None,
    }
