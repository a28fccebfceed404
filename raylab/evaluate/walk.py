"""A walk through the depth of a model: accuracy and loss, from the activations below the layer that is changed.

When the perturbations of a model are worked in depth order, only the activations at one boundary need to be kept: those
of the last cut below the perturbed layer. Everything above is run again, everything below is not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from raylab.evaluate.anatomy import Anatomy, examine
from raylab.evaluate.boundary import GB, Boundary
from raylab.evaluate.cuts import Cut
from raylab.evaluate.replay import Replay, Tensors, alike, holds
from raylab.evaluate.score import NOTHING, Evaluation, score
from raylab.evaluate.stacked import stacked
from raylab.models.kernels import as_tensor
from raylab.perturb import perturbed
from raylab.types import Array, Budget

WATCHED = 2  # samples of the pass that shows where a model can be cut
Watch = tuple[str, Callable[[int, Tensor], None]]
Prepare = Callable[[Tensor], Tensor]
T = TypeVar("T")


class PrefixWalk:
    """A model and data to evaluate it on, with the activations at one boundary.

        walk = PrefixWalk(model, x, y)
        baseline = walk.evaluate()
        for layer in layers:  # in depth order
            walk.advance_to([f"{layer}.weight", f"{layer}.bias"])
            for arrays in ...:
                with perturbed(model, arrays):
                    result = walk.evaluate()

    x: (samples, ...), y: (samples, ...) labels of the logits (samples, ..., classes); tensors or arrays. `prepare`
    makes of a batch of x, on the model's device, what the model takes. A batch that does not fit into a GPU's memory is
    halved, and so are the later ones. The model is put into evaluation mode. Where it can be cut is found by watching
    it; one that cannot be, is run whole each time. Cuts within a block, which several tensors cross, are used where
    those of all samples fit into the memory that the budget allows.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor | Array,
        y: Tensor | Array,
        batch_size: int = 500,
        prepare: Prepare | None = None,
        budget: Budget | None = None,
    ) -> None:
        if len(x) != len(y) or not len(y):
            raise ValueError(f"{len(x)} samples and {len(y)} labels")
        self.model = model.eval()
        self.batch_size = batch_size  # of what is computed at once; shrinks when memory runs out
        first = next(model.parameters(), None)
        self._device = torch.device("cpu") if first is None else first.device
        self._x, self._y = x, y
        self._prepare = prepare or (lambda batch: batch)
        self._batches = [slice(start, start + batch_size) for start in range(0, len(y), batch_size)]
        self._budget = budget or Budget()
        sample = self._prepared(slice(0, WATCHED))
        self._blank = torch.full_like(sample[:1], nan if sample.is_floating_point() else 0)
        self.anatomy = _anatomy(self.model, sample).within(self._fits_into_memory)
        self._replay = Replay(self.model, self.anatomy)
        self._proven: set[Cut] = set()
        self.rewind()

    def rewind(self) -> None:
        """Back to the inputs."""
        self.depth_reached = -1  # index of the cut whose activations are held; -1: the inputs
        self._boundary = Boundary(len(self._batches), self._device, self._budget)

    def _fits_into_memory(self, cut: Cut) -> bool:
        gpu_gb = self._budget.gpu_gb if self._device.type != "cpu" else 0.0
        return cut.nbytes * len(self._y) <= (gpu_gb + self._budget.host_gb) * GB

    def depth(self, parameters: Sequence[str]) -> int:
        """How far a walk has to have come for these parameters: -1 is the inputs, then the cuts from 0 on."""
        return self.anatomy.cut_below(parameters)

    def advance_to(self, parameters: Sequence[str]) -> None:
        """Move the boundary up to just below the first of some parameters. ValueError where it is above that."""
        target, here = self._proven_depth(parameters), self.depth_reached
        if target < here:
            raise ValueError(f"cannot walk from cut {here} back to {target}: rewind")
        if target == here:
            return
        start, stop = self._cut, self.anatomy.cuts[target]
        try:
            with self._replay.remembering(start, stop), self._replay.taken_up(start):
                for k in range(len(self._batches)):  # a batch at a time: one boundary in memory
                    pieces = self._pieces(k, lambda x, c, _: self._replay.to_cut(stop, x, c))
                    self._boundary[k] = _put_together(list(pieces))
        except BaseException:
            self.rewind()  # some batches are at one cut and some at the other
            raise
        self.depth_reached = target

    def _proven_depth(self, parameters: Sequence[str]) -> int:
        """`depth`, once the cuts from which a pass does not give what a whole one does are left out."""
        while (target := self.depth(parameters)) > self.depth_reached:
            cut = self.anatomy.cuts[target]
            if cut in self._proven or self._holds(cut):
                self._proven.add(cut)
                break
            self.anatomy = self.anatomy.without(cut)
        return target

    def _holds(self, cut: Cut) -> bool:
        """Tried on the last samples, as the first have shown where the cut is; of few on one alone: it takes time."""
        count = len(self._y)
        rows = max(1, min(WATCHED, self.batch_size, count // 16))
        samples = self._prepared(slice(count - rows, count))
        lost = self._blank.expand_as(samples) if self._blank.is_floating_point() else samples
        return holds(self.model, self.anatomy, cut, samples, self._prepared(slice(0, rows)), lost)

    def evaluate(self, watch: Watch | None = None) -> Evaluation:
        """Accuracy and loss of the model as it is now, from the boundary up.

        `watch` = (module, observe): observe(batch index, output) gets what that module gives, a batch at a time.
        """
        result = NOTHING
        with self._replay.taken_up(self._cut):
            for k in range(len(self._batches)):
                with self._listening(watch, k) as seen:
                    result = sum(self._pieces(k, self._scored, seen), result)
        return result

    def capacity(self, parameters: Sequence[str]) -> int:
        """How many changes of these parameters fit into one batch together with all samples; 1 where they cannot be."""
        fit = self.batch_size // len(self._y)
        return fit if fit > 1 and self.anatomy.contained.issuperset(parameters) and self._rows_are_apart else 1

    @functools.cached_property
    def _rows_are_apart(self) -> bool:
        """Whether the logits of a sample are, but for rounding, the same whatever else is in its batch."""
        sample = self._prepared(slice(0, 1))
        both = torch.cat([sample, sample.flip(-1)])
        try:
            alone = torch.cat([self._replay.logits(row.clone()) for row in both.split(1)])
            return alike(self._replay.logits(both.clone()), alone)
        except Exception:  # whatever a stranger's model may raise of a single sample
            return False

    def evaluate_each(self, variants: Sequence[Mapping[str, Array]]) -> list[Evaluation]:
        """`evaluate` with each of several changes of the same parameters in turn, or all at once: see `capacity`.

        At once the last digits are others: a product is blocked by its number of rows.
        """
        if len(variants) == 1 or len(self._batches) > 1:
            return [self._evaluate_with(arrays) for arrays in variants]
        inputs, crossing = self._inputs(self._batches[0]), self._crossing(0, self._batches[0])
        copies, labels = len(variants), _tensor(self._y).to(self._device)
        with self._replay.taken_up(self._cut), stacked(self.model, variants, len(labels)):
            logits = self._replay.logits(_repeated(inputs, copies), tuple(_repeated(x, copies) for x in crossing))
        return [score(part, labels) for part in logits.split(len(labels))]

    def _evaluate_with(self, arrays: Mapping[str, Array]) -> Evaluation:
        with perturbed(self.model, arrays):
            return self.evaluate()

    def outputs(self, module: str) -> Iterator[Tensor]:
        """What a module above the boundary gives, a batch at a time; nothing above it is run."""
        with self._replay.taken_up(self._cut):
            for k in range(len(self._batches)):
                yield _joined(list(self._pieces(k, lambda x, c, _: self._replay.output(module, x, c))))

    @property
    def _cut(self) -> Cut | None:
        return None if self.depth_reached < 0 else self.anatomy.cuts[self.depth_reached]

    def _scored(self, inputs: Tensor, crossing: Tensors, rows: slice) -> Evaluation:
        logits = self._replay.logits(inputs, crossing)
        return score(logits, _tensor(self._y[rows]).to(logits.device))

    def _pieces(
        self, k: int, compute: Callable[[Tensor, Tensors, slice], T], seen: list[Tensor] | None = None
    ) -> Iterator[T]:
        """`compute` of a batch, in pieces that fit into memory. What is `seen` of one that does not is taken back."""
        batch = self._batches[k]
        at, heard = batch.start, len(seen or ())
        while at < min(batch.stop, len(self._y)):
            rows, failure = slice(at, min(at + self.batch_size, batch.stop, len(self._y))), None
            try:
                yield compute(self._inputs(rows), self._crossing(k, rows), rows)
            except torch.OutOfMemoryError as error:
                failure = error.with_traceback(None)  # its frames hold what is in the way
            if failure:
                if not self._make_room():
                    raise failure
                del (seen or [])[heard:]
                continue
            at, heard = rows.stop, len(seen or ())

    def _make_room(self) -> bool:
        """Halve the batch, and at last let no activations lie on the GPU. False: nothing more can be done."""
        found = self.batch_size > 1 or self._boundary.leave_gpu()
        self.batch_size = max(1, self.batch_size // 2)
        torch.cuda.empty_cache()
        return found

    def _crossing(self, k: int, rows: slice) -> Tensors:
        """What is held of some rows of a batch; at the inputs nothing."""
        start = self._batches[k].start
        return () if self.depth_reached < 0 else self._boundary.rows(k, rows.start - start, rows.stop - start)

    def _inputs(self, rows: slice) -> Tensor:
        """A batch of what the model takes. Above a cut nothing but its shape is asked of images."""
        if self.depth_reached >= 0 and self._blank.is_floating_point():
            inputs = self._blank.expand(rows.stop - rows.start, *self._blank.shape[1:])
        else:
            inputs = self._prepared(rows)
        return inputs.clone() if "" in self.anatomy.written else inputs

    def _prepared(self, rows: slice) -> Tensor:
        return self._prepare(_tensor(self._x[rows]).to(self._device))

    @contextmanager
    def _listening(self, watch: Watch | None, k: int) -> Iterator[list[Tensor] | None]:
        """Within the block the outputs of the watched module are collected; then they are given to who watches."""
        if watch is None:
            yield None
            return
        name, observe = watch
        seen: list[Tensor] = []
        with self.model.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2])):
            yield seen
        observe(k, _joined(seen))


def _anatomy(model: nn.Module, sample: Tensor) -> Anatomy:
    found = examine(model, torch.cat([sample] * WATCHED)[:WATCHED])
    return found.agreed(examine(model, torch.cat([sample] * (WATCHED + 1))[: WATCHED + 1])) if found.doubtful else found


def _put_together(pieces: Sequence[Tensors]) -> Tensors:
    """The tensors of a batch from those of its pieces, in host memory: if there are several, the device has no room."""
    if len(pieces) == 1:
        return pieces[0]
    return tuple(torch.cat([part.cpu() for part in parts]) for parts in zip(*pieces, strict=True))


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(pieces)) if len(pieces) > 1 else pieces[0]


def _repeated(batch: Tensor, copies: int) -> Tensor:
    return batch.repeat(copies, *[1] * (batch.dim() - 1))


def _tensor(rows: Tensor | Array) -> Tensor:
    return rows if isinstance(rows, Tensor) else as_tensor(np.asarray(rows))
