"""What a model got right, in sums that add up over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raylab.data.evaluation import IGNORED

BLOCK = 2**24  # logits whose logarithms are taken at once: of a language model the rest would cost a second copy


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model got right, in sums, so that parts of a data set add up."""

    correct: int
    total_loss: float  # cross-entropy, nats, summed over the samples
    num_samples: int  # labels scored: images, or tokens of a text
    among_five: int = 0  # samples whose label is among the five largest logits

    @property
    def accuracy(self) -> float:
        """Fraction of samples whose largest logit is the label's, 0..1."""
        return self.correct / self.num_samples

    @property
    def top5(self) -> float:
        """Fraction of samples whose label is among the five largest logits, 0..1."""
        return self.among_five / self.num_samples

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return self.total_loss / self.num_samples

    def perplexity(self, per: int | None = None) -> float:
        """exp of the cross-entropy a label, or of the total over `per` units (words); infinite where it overflows."""
        try:
            return math.exp(self.total_loss / (per or self.num_samples))
        except OverflowError:
            return math.inf

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.correct + other.correct,
            self.total_loss + other.total_loss,
            self.num_samples + other.num_samples,
            self.among_five + other.among_five,
        )


NOTHING = Evaluation(0, 0.0, 0)


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """Count and sum over a batch: logits (..., classes), labels (...).

    A row with a NaN is wrong, whatever its label; a label of -100 is not scored. Equal logits are in the order of their
    classes. Losses are of float32 logits whatever the model computes in, and summed in float64.
    """
    flat, y = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    result, rows = NOTHING, max(1, BLOCK // logits.shape[-1])
    for some, wanted in zip(flat.split(rows), y.split(rows), strict=True):
        result += _of_block(some.float(), wanted)
    return result


def _of_block(logits: Tensor, labels: Tensor) -> Evaluation:
    losses = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    best, guess = logits.max(-1)
    valid = (labels != IGNORED) & ~best.isnan()
    five = logits.topk(min(5, logits.shape[-1])).indices
    sums = torch.stack(
        [
            ((guess == labels) & valid).sum(),
            (labels != IGNORED).sum(),
            ((five == labels.unsqueeze(-1)).any(-1) & valid).sum(),
        ]
    )
    correct, scored, among_five = sums.tolist()  # the device is waited for once
    return Evaluation(correct, float(losses.sum(dtype=torch.float64)), scored, among_five)
