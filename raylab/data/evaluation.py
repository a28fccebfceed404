"""The noun for what a given model is evaluated on: images with classes, or windows of a text. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raylab.types import Array, Value

IGNORED = -100  # a label that is not scored, as in torch and transformers: padding of a text, overlaps of its windows


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationData:
    """Samples as they are stored, small enough to be held once a node; a model gets them prepared, batch by batch."""

    name: str  # "imagenet-1k validation", "wikitext-103 test"
    task: Literal["image", "text"]
    x: Array  # (samples, 3, height, width) uint8, or (windows, context) int32 token ids; (samples, ...) float32 as is
    y: NDArray[np.int64]  # (samples,) classes, or (windows, context) the token that follows each; IGNORED: not scored
    mean: tuple[float, ...] = ()  # of x/255 by channel; empty where nothing is normalised
    std: tuple[float, ...] = ()
    revision: str = ""  # digest of the raw content and of what is done to it; part of a trial's identity
    protocol: Mapping[str, Value] = field(default_factory=dict)  # columns of every row: how it is evaluated
    classes: int | None = None  # how many the data set tells apart, in these samples or not; None: it does not say
    words: int = 0  # of a text: words that the scored tokens stand for, for perplexity a word
