"""What a given model is evaluated on, and whether the two belong together: said before any work, in one line."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from raylab.data.evaluation import IGNORED, EvaluationData
from raylab.data.text import check_positions
from raylab.errors import UserError
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
    _check_labels(data, network)
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


def _check_labels(data: EvaluationData, network: Network) -> None:
    """A label that the model has no output for is an index error, or on a GPU the end of the process."""
    labels = data.y[data.y != IGNORED]
    if not labels.size:
        raise UserError(f"{data.name} has no label that is scored: give more of it.")
    what, advice = "labels", "give the data set that it was trained on, or model.architecture with as many outputs"
    if data.task == "text":
        what, advice = "token ids", "give data.tokenizer=FOLDER, the model's own"
    if labels.min() < 0:
        raise UserError(f"{data.name} has {what} below 0, such as {labels.min()}: only {IGNORED} may be, not scored.")
    outputs = outputs_of(network, data)
    if outputs is not None and labels.max() >= outputs:
        raise UserError(
            f"{data.name} has {what} up to {labels.max()}, and {network.name} only {outputs:,} outputs (0 to "
            f"{outputs - 1}): {advice}."
        )


def outputs_of(network: Network, data: EvaluationData) -> int | None:
    """How many classes or tokens a model tells apart, by the shape of what it gives; None where a pass shows none.

    The pass has no numbers in it (torch's device "meta"); where that is not enough, as transformers looks at some, it
    is one of very few tokens.
    """
    import torch

    from raylab.evaluate.replay import logits_of

    for module, sample in _passes(network, data):
        try:
            with torch.no_grad():
                return int(logits_of(module(sample)).shape[-1])
        except Exception:  # whatever a stranger's model may raise: if it is one, its trials will say it
            continue
    return None


def _passes(network: Network, data: EvaluationData) -> Iterator[tuple[nn.Module, Tensor]]:
    import torch

    text = data.task == "text"
    shape = (1, min(TOKENS, data.x.shape[1])) if text else (1, *data.x.shape[1:])
    sample = torch.zeros(shape, dtype=torch.int64 if text else torch.float32)
    yield copy.deepcopy(network.skeleton).eval(), sample.to("meta")
    yield network.module(), sample
