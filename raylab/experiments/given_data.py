"""What a given model is evaluated on, and whether the two belong together: said before any work, in one line."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from raylab.data.evaluation import IGNORED, EvaluationData
from raylab.data.text import check_positions
from raylab.errors import UserError, first_line
from raylab.models.networks import Network
from raylab.registry import call

if TYPE_CHECKING:
    from torch import Tensor, nn

    from raylab.config import Config

TOKENS = 2  # of a window that shows how many outputs a language model has


def data_of(load: Any, config: Config, network: Network) -> EvaluationData:
    """What the network is evaluated on; a loader that asks for the network gets it.

    Raises UserError for what is no EvaluationData, and for one that the network has no positions or outputs for.
    """
    wants = "network" in inspect.signature(load).parameters
    data = call(load, config.data, "data", **({"network": network} if wants else {}))
    if not isinstance(data, EvaluationData):
        raise UserError(
            f"data '{config.data['_target_']}' gives a {type(data).__name__}, which a given model is not evaluated on: "
            "choose data=imagenet, data=cifar10 or data=wikitext, or give a raylab.data.EvaluationData."
        )
    if data.task == "text":
        check_positions(data.x.shape[1], network)
    _check_labels(data, network, config.model.get("pretrained", True))
    return data


def described(data: EvaluationData) -> str:
    """The data in words: what is scored, and of a text the windows it is seen through."""
    scored = int((data.y != IGNORED).sum())
    if data.task == "image":
        return f"{data.name}, {scored:,} images"
    windows, context = data.x.shape
    stride = data.protocol.get("stride")
    step = "" if stride is None else f", stride {stride:,}"
    return f"{data.name}, {scored:,} tokens scored in {windows:,} windows (context {context:,}{step})"


def _check_labels(data: EvaluationData, network: Network, trained: bool) -> None:
    """A label that the model has no output for is an index error, or on a GPU the end of the process.

    Of a trained model with more outputs than the data have classes, class 3 is another thing: every accuracy would be
    that of chance, and nothing would say so.
    """
    labels = data.y[data.y != IGNORED]
    if not labels.size:
        raise UserError(f"{data.name} has no label that is scored: give more of it.")
    what, advice = "labels", "give the data set that it was trained on, or model.architecture with as many outputs"
    if data.task == "text":
        what, advice = "token ids", "give data.tokenizer=FOLDER, the model's own"
    if labels.min() < 0:
        raise UserError(f"{data.name} has {what} below 0, such as {labels.min()}: only {IGNORED} may be, not scored.")
    outputs = outputs_of(network, data)
    if labels.max() >= outputs:
        raise UserError(
            f"{data.name} has {what} up to {labels.max()}, and {network.name} only {outputs:,} outputs (0 to "
            f"{outputs - 1}): {advice}."
        )
    if trained and data.task == "image" and data.classes is not None and data.classes != outputs:
        raise UserError(
            f"{data.name} has {data.classes:,} classes, and {network.name} tells {outputs:,} others apart: {advice}; "
            "data.classes=imagenet-1k if its labels are ImageNet's; model.pretrained=false to rehearse."
        )


def outputs_of(network: Network, data: EvaluationData) -> int:
    """How many classes or tokens a model tells apart, by the shape of what it gives.

    The pass has no numbers in it (torch's device "meta"); where that is not enough, as transformers looks at some, it
    is one of very few tokens, and at last one of a sample. Raises UserError where the model does not take that either.
    """
    import torch

    from raylab.evaluate.replay import logits_of

    failure: Exception | None = None
    for module, sample in _passes(network, data):
        try:
            with torch.no_grad():
                return int(logits_of(module(sample)).shape[-1])
        except Exception as error:  # whatever a stranger's model may raise
            failure = error
    assert failure is not None
    kind = "texts" if data.task == "text" else f"images of {' x '.join(map(str, data.x.shape[1:]))}"
    raise UserError(
        f"{network.name} cannot be run on {data.name}: {first_line(failure)}. Give a model that takes {kind} and gives "
        "logits, or other data."
    ) from failure


def _passes(network: Network, data: EvaluationData) -> Iterator[tuple[nn.Module, Tensor]]:
    import torch

    text = data.task == "text"
    whole = torch.as_tensor(np.ascontiguousarray(data.x[:1])).long() if text else torch.zeros(1, *data.x.shape[1:])
    few = whole[:, :TOKENS] if text else whole
    yield copy.deepcopy(network.skeleton).eval(), few.to("meta")
    module = network.module()
    if text:
        yield module, torch.zeros_like(few)
    yield module, whole
