"""Accuracy and loss of a model, reusing the activations below the layer that is perturbed.

When the perturbations of a model are worked in depth order, only the activations at one boundary need to be kept: those
that enter the stage which holds the perturbed layer. Everything above is run again, everything below is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

IGNORED = -100  # a label that is not scored, torch's convention: padding of a text
Stage = Callable[[Tensor], Tensor]
Watch = tuple[nn.Module, Callable[[int, Tensor], None]]


@runtime_checkable
class Staged(Protocol):
    """A model cut into stages: x_{k+1} = stages[k](x_k) from the inputs to the logits. A stage that holds layers uses
    the model's own modules, so that a perturbed module is what runs.
    """

    @property
    def stages(self) -> Sequence[Stage]:
        """The pieces of the forward pass."""
        ...

    def stage_of(self, layer: str) -> int:
        """Index of the stage that holds a layer."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model got right, in sums, so that parts of a data set add up."""

    correct: int
    total_loss: float  # cross-entropy, nats, summed over the samples
    num_samples: int  # labels scored: images, or tokens of a text

    @property
    def accuracy(self) -> float:
        """Fraction of samples whose largest logit is the label's, 0..1."""
        return self.correct / self.num_samples

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return self.total_loss / self.num_samples

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.correct + other.correct, self.total_loss + other.total_loss, self.num_samples + other.num_samples
        )


class PrefixWalk:
    """A model and data to evaluate it on, with the activations at one boundary.

        walk = PrefixWalk(model, x, y)
        baseline = walk.evaluate()
        for layer in layers:  # in depth order
            walk.advance_to(model.stage_of(layer.name))
            for arrays in ...:
                with perturbed(model, layer.name, arrays):
                    result = walk.evaluate()

    x: (samples, ...), y: (samples, ...) labels of the logits (samples, ..., classes). Both are moved to the model's
    device a batch at a time; the boundary stays there. A batch that does not fit into a GPU's memory is halved, and so
    are the later ones. The model is put into evaluation mode. A text or image set that does not fit at all is given in
    parts, a walk each, and the Evaluations are added.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 500) -> None:
        if not isinstance(model, Staged):
            raise ValueError(f"{type(model).__name__} has no stages to walk")
        if len(x) != len(y) or not len(y):
            raise ValueError(f"{len(x)} samples and {len(y)} labels")
        self.model = model.eval()
        self.position = 0  # the boundary holds the inputs of this stage
        self.batch_size = batch_size  # of what is computed at once; shrinks when memory runs out
        first = next(model.parameters(), None)
        self._device = torch.device("cpu") if first is None else first.device
        self._boundary = list(x.split(batch_size))
        self._labels = list(y.split(batch_size))

    def advance_to(self, stage: int) -> None:
        """Move the boundary up to the inputs of a stage. ValueError below where it is: a walk goes one way."""
        stages = list(self.model.stages)
        if not self.position <= stage < len(stages):
            raise ValueError(f"cannot walk from stage {self.position} to {stage} of {len(stages)}")
        between = stages[self.position : stage]
        for k in range(len(self._boundary) if between else 0):  # a batch at a time: one boundary in memory
            self._boundary[k] = self._run(between, self._boundary[k])
        self.position = stage

    def evaluate(self, watch: Watch | None = None) -> Evaluation:
        """Accuracy and loss of the model as it is now, from the boundary up.

        `watch` = (module, observe): observe(batch index, output) gets what that module gives, a batch at a time.
        """
        stages = list(self.model.stages)[self.position :]
        result = Evaluation(0, 0.0, 0)
        for k, (x, y) in enumerate(zip(self._boundary, self._labels, strict=True)):
            outputs: list[Tensor] = []
            logits = self._run(stages, x, watch[0] if watch else None, outputs)
            result += score(logits, y.to(logits.device))
            if watch:
                watch[1](k, torch.cat(outputs) if len(outputs) > 1 else outputs[0])
        return result

    def outputs(self, module: nn.Module) -> Iterator[Tensor]:
        """What a module of the stage above the boundary gives, a batch at a time; nothing above that stage is run."""
        stage = list(self.model.stages)[self.position]
        for x in self._boundary:
            outputs: list[Tensor] = []
            self._run([stage], x, module, outputs)
            yield torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    @torch.no_grad()
    def _run(
        self, stages: Sequence[Stage], x: Tensor, watched: nn.Module | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """x through the stages, in pieces that fit into memory; appends what the watched module gave to `seen`."""
        seen = [] if seen is None else seen
        while True:
            hook = watched.register_forward_hook(lambda *call: seen.append(call[2])) if watched else None
            try:
                pieces = [_through(stages, piece.to(self._device)) for piece in x.split(self.batch_size)]
                return torch.cat(pieces) if len(pieces) > 1 else pieces[0]
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                seen.clear()
            finally:
                if hook:
                    hook.remove()
            torch.cuda.empty_cache()


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """Count and sum over a batch: logits (..., classes), labels (...).

    A row with a NaN is wrong, whatever its label; a label of -100 is not scored.
    """
    flat, y = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    losses = nn.functional.cross_entropy(flat, y, ignore_index=IGNORED, reduction="none")
    best, guess = flat.max(-1)
    correct = (guess == y) & ~best.isnan()
    return Evaluation(int(correct.sum()), float(losses.sum(dtype=torch.float64)), int((y != IGNORED).sum()))


def _through(stages: Sequence[Stage], x: Tensor) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x
