"""Windows of a text for a causal language model, and the protocol by which its perplexity is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raylab.data.evaluation import IGNORED, EvaluationData
from raylab.data.tokens import Tokens, tokenise
from raylab.errors import UserError
from raylab.types import digest

NORMALISERS = ("token", "word")
PADDING = 0  # on the right, where causal models do not look


class Window(NamedTuple):
    """Places in a stream of tokens: `begin` to `end` are seen; of those, what lies before `new` was seen before."""

    begin: int
    end: int
    new: int


def evaluation(
    texts: Sequence[str],
    *,
    name: str,
    tokenizer: str,
    joining: str,
    context: int = 1024,
    stride: int | None = None,
    normaliser: str = "token",
    tokens: int | None = None,
    cache: str | Path | None = None,
    download: bool = False,
) -> EvaluationData:
    """Texts, each by itself, as windows of `context` tokens that begin every `stride` tokens (None: `context`).

    x is (windows, context) and y the token that follows each within its window: the last token of a window has none,
    and where windows overlap a token is scored in the first of them that reaches it, as in the Hugging Face guide to
    the perplexity of fixed-length models. The first token of every text is never scored; with stride = context the
    first of every window is not. The last window of a text is padded on the right.

    normaliser: what perplexity is per. For "word", `words` are those between white space in the text, times the share
    of its tokens that are scored. tokens: the first so many only. Raises UserError for values that make no sense.
    """
    stride = context if stride is None else stride
    check(context, stride, normaliser)
    stream = tokenise(texts, tokenizer, limit=tokens, cache=cache, download=download)
    if joining != "documents" and context > len(stream.ids):
        there = f"{len(stream.ids)} tokens" + ("" if tokens is None else f" that data.tokens={tokens} leaves")
        raise UserError(f"data.context={context} is more than the text's {there}: give a smaller one, or more text.")
    x, y = windows(stream, context, stride)
    words = round(stream.words * int((y != IGNORED).sum()) / len(stream.ids))
    return EvaluationData(
        name=name,
        task="text",
        x=x,
        y=y,
        revision=digest([stream.digest, context, stride, normaliser]),
        protocol={
            "context": context,
            "stride": stride,
            "joining": joining,
            "normaliser": normaliser,
            "tokenizer": label(tokenizer),
            "words": words,
            "subset": None if tokens is None else f"first {tokens} tokens",
        },
        words=words,
    )


def tokenizer_of(network: Any, tokenizer: str | Path | None) -> str:
    """The one that is given, else the network's. Raises UserError where there is neither."""
    found = tokenizer if tokenizer is not None else getattr(network, "tokenizer", None)
    if not found:
        raise UserError("There is no tokenizer: give data.tokenizer=FOLDER, or the hub id of one.")
    return str(found)


def label(tokenizer: str) -> str:
    """What rows call a tokenizer: its hub id, or the name of its folder."""
    place = Path(tokenizer).expanduser()
    return place.resolve().name if place.is_dir() else tokenizer


def windows(stream: Tokens, context: int, stride: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """x and y, (windows, context), of every text in a stream."""
    places = [place for place in _places(stream.lengths, context, stride) if _scores(place)]
    if not places:
        raise UserError("The text has no token that follows another: give a longer one, or more data.tokens.")
    x = np.full((len(places), context), PADDING, np.int32)
    y = np.full((len(places), context), IGNORED, np.int64)
    for row, (begin, end, new) in enumerate(places):
        x[row, : end - begin] = stream.ids[begin:end]
        first = max(new - 1, begin)  # whose next token is the first that is scored
        y[row, first - begin : end - begin - 1] = stream.ids[first + 1 : end]
    return x, y


def _places(lengths: Sequence[int], context: int, stride: int) -> Iterator[Window]:
    start = 0
    for length in lengths:
        new, stop = start, start + length
        for begin in range(start, stop, stride):
            end = min(begin + context, stop)
            yield Window(begin, end, new)
            new = end
            if end == stop:
                break
        start = stop


def _scores(window: Window) -> bool:
    """Whether a window has a token that follows another in it: the last may be one token alone."""
    return window.end - max(window.new, window.begin + 1) > 0


def check(context: int, stride: int | None, normaliser: str, network: Any = None) -> None:
    """Raise UserError for a protocol that makes no sense, or windows longer than a network has positions for.

    It needs no text: what is wrong is said before one is read.
    """
    stride = context if stride is None else stride
    check_positions(context, network)
    if context < 2:
        raise UserError(f"data.context={context} must be at least 2 tokens.")
    if not 1 <= stride <= context:
        raise UserError(
            f"data.stride={stride} must be between 1 and data.context={context}: beyond it tokens are lost."
        )
    if normaliser not in NORMALISERS:
        raise UserError(f"data.normaliser={normaliser} is not known. Available: {', '.join(NORMALISERS)}.")


def check_positions(context: int, network: Any) -> None:
    """Raise UserError where windows of so many tokens are longer than a network has positions for."""
    most = getattr(network, "context", None)
    if most is not None and context > most:
        raise UserError(
            f"Windows of {context} tokens are longer than the {most} that {network.name} has positions for: "
            f"give data.context={most} or less."
        )
