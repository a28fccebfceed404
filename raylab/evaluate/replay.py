"""A forward pass taken up at one cut and broken off at another.

The model's own forward runs, so that nothing about the model has to be known: the modules below the cut are replaced by
stubs that do nothing; those whose output crosses the cut give back the activations that were kept.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from raylab.evaluate.anatomy import Anatomy
from raylab.evaluate.cuts import Cut
from raylab.evaluate.modules import module_by_module

Tensors = tuple[Tensor, ...]  # what crosses a cut, each (samples, ...)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A tensor that a module gave for a batch of so many samples."""

    shape: tuple[int, ...]
    samples: int | None  # None: the shape has nothing to do with them
    dtype: torch.dtype
    device: torch.device

    def placeholder(self, samples: int, written: bool) -> Tensor:
        """What stands for it in another batch: nobody reads it, and NaN would show if somebody did.

        It has one row's memory, unless it is going to be written to.
        """
        shape = self.shape
        if shape and self.samples and not shape[0] * samples % self.samples:
            shape = (shape[0] * samples // self.samples, *shape[1:])
        memory = shape if written or not shape else (1, *shape[1:])
        fill = nan if self.dtype.is_floating_point else 0
        return torch.full(memory, fill, dtype=self.dtype, device=self.device).expand(shape)


@dataclass(frozen=True, slots=True)
class _Output:
    """What a module gave, without the numbers."""

    leaves: tuple[Any, ...]  # _Shape for a tensor
    spec: TreeSpec

    @classmethod
    def of(cls, out: Any, samples: int, is_constant: Callable[[int], bool]) -> _Output:
        leaves, spec = tree_flatten(out)
        count = itertools.count()

        def shape(x: Tensor) -> _Shape:
            return _Shape(tuple(x.shape), None if is_constant(next(count)) else samples, x.dtype, x.device)

        return cls(tuple(shape(x) if isinstance(x, Tensor) else x for x in leaves), spec)

    def filled(self, tensor: Callable[[int, _Shape], Tensor]) -> Any:
        """The same again with `tensor(k, shape)` for its k-th tensor."""
        count = itertools.count()
        leaves = [tensor(next(count), x) if isinstance(x, _Shape) else x for x in self.leaves]
        return tree_unflatten(leaves, self.spec)


class _Reached(Exception):  # noqa: N818 - nothing is wrong: it is how a pass is left
    """The pass has come to where it is to be broken off."""


class Replay:
    """Runs a model from its inputs or a cut to another cut or its logits."""

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        self._model = model
        self._written = anatomy.written
        self._constant = anatomy.constant
        self._outputs: dict[str, list[_Output]] = {}  # of each call in a pass: one module may give several shapes
        self._calls: Counter[str] = Counter()  # of those modules, in the pass that is running
        self._samples = 0  # of its batch
        self._crossing: Tensors = ()

    @torch.no_grad()
    def logits(self, inputs: Tensor, crossing: Tensors = ()) -> Tensor:
        """The logits of a batch; within `taken_up`, from the activations `crossing` there."""
        return logits_of(self._run(inputs, crossing))

    def to_cut(self, cut: Cut, inputs: Tensor, crossing: Tensors = ()) -> Tensors:
        """What crosses another cut; nothing beyond it is run."""
        given = self._given(list(dict.fromkeys(each.module for each in cut.crossing)), inputs, crossing)
        return tuple(given[each.module][each.leaf] for each in cut.crossing)

    def output(self, module: str, inputs: Tensor, crossing: Tensors = ()) -> Tensor:
        """What a module gives, the first tensor of it; nothing beyond is run."""
        return self._given([module], inputs, crossing)[module][0]

    @torch.no_grad()
    def _given(self, modules: Sequence[str], inputs: Tensor, crossing: Tensors) -> dict[str, list[Tensor]]:
        """The tensors that some modules give. ValueError where no pass comes by one."""
        with self._broken_off(modules) as given:
            try:
                self._run(inputs, crossing)
            except _Reached:
                return given
        missing = [name for name in modules if name not in given]
        raise ValueError(f"the forward pass does not come by {' and '.join(missing)}")

    def _run(self, inputs: Tensor, crossing: Tensors) -> Any:
        self._samples, self._crossing = len(inputs), crossing
        self._calls.clear()
        try:
            with module_by_module():
                return self._model(inputs)
        finally:
            self._crossing = ()  # the walk decides how long activations are kept

    @contextmanager
    def taken_up(self, cut: Cut | None) -> Iterator[None]:
        """Within the block passes begin at the cut (None: at the inputs). It must have been passed before."""
        with ExitStack() as stack:
            for name in cut.skipped if cut else ():
                module = self._model.get_submodule(name)
                stack.enter_context(replaced_forward(module, self._stub(name, cut)))
                for hooks in ("_forward_pre_hooks", "_forward_hooks"):  # what is kept is what they have left
                    stack.enter_context(_replaced(module, hooks, OrderedDict()))
            yield

    @contextmanager
    def remembering(self, start: Cut | None, stop: Cut) -> Iterator[None]:
        """Within the block it is noted what the modules between two cuts give: their stubs have to give the like."""
        with ExitStack() as stack:
            for name in stop.skipped - (start.skipped if start else frozenset()):
                self._outputs.pop(name, None)
                note = lambda _, __, out, name=name: self._note(name, out)  # noqa: E731
                stack.enter_context(self._model.get_submodule(name).register_forward_hook(note))
            yield

    def _note(self, name: str, out: Any) -> None:
        calls, k = self._outputs.setdefault(name, []), self._calls[name]
        if k == len(calls):  # of the first batch: the last may have one sample, of which everything is a multiple
            calls.append(_Output.of(out, self._samples, lambda leaf: (name, leaf) in self._constant))
        self._calls[name] += 1

    def _noted(self, name: str) -> _Output:
        """What the module gave when it was called for the same time in a pass."""
        calls, k = self._outputs[name], self._calls[name]
        self._calls[name] += 1
        return calls[min(k, len(calls) - 1)]

    def _stub(self, name: str, cut: Cut | None) -> Callable[..., Any]:
        """Gives what the module would: the tensors that cross, of others the shape."""
        written = name in self._written
        entries = {each.leaf: k for k, each in enumerate(cut.crossing if cut else ()) if each.module == name}

        def give(leaf: int, shape: _Shape) -> Tensor:
            if cut is None or leaf not in entries:
                return shape.placeholder(self._samples, written)
            k = entries[leaf]
            return self._crossing[k].clone() if cut.crossing[k].written else self._crossing[k]

        return lambda *_, **__: self._noted(name).filled(give)

    @contextmanager
    def _broken_off(self, modules: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
        """Within the block a pass ends where the last of some modules has given its output; what they gave."""
        given: dict[str, list[Tensor]] = {}

        def note(name: str, out: Any) -> None:
            given[name] = [leaf for leaf in tree_flatten(out)[0] if isinstance(leaf, Tensor)]
            if len(given) == len(modules):
                raise _Reached

        with ExitStack() as stack:
            for name in modules:
                hook = lambda _, __, out, name=name: note(name, out)  # noqa: E731
                stack.enter_context(self._model.get_submodule(name).register_forward_hook(hook))
            yield given


def holds(model: nn.Module, anatomy: Anatomy, cut: Cut, samples: Tensor, others: Tensor, lost: Tensor) -> bool:
    """Whether a pass over `samples` that is taken up at a cut gives what a whole one does.

    What a trace does not show, this does: numbers that Python keeps or hands on, shapes that depend on the samples,
    modules whose forward is called past them. What is not handed in comes from `others`, and the inputs are `lost`.
    """
    replay = Replay(model, anatomy)
    try:
        expected = replay.logits(samples.clone())
        crossing = replay.to_cut(cut, samples.clone())
        with replay.remembering(None, cut):
            replay.to_cut(cut, others.clone())
        with replay.taken_up(cut):
            found = replay.logits(lost.clone(), crossing)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a stranger's model may raise; if a whole pass does, its trials will say it
        return False
    # Where sums are in no certain order, as of some operations on a GPU, the last digits differ anyhow.
    return alike(found, expected, exactly=found.device.type == "cpu")


def alike(found: Tensor, expected: Tensor, exactly: bool = False) -> bool:
    """Whether two tensors are the same, or but for what rounding makes of the largest entry; NaN is NaN."""
    if found.shape != expected.shape:
        return False
    largest = float(expected.nan_to_num().abs().max()) if expected.numel() else 0.0
    tolerance = 0.0 if exactly else torch.finfo(expected.dtype).eps ** 0.5 * largest
    return torch.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True)


def logits_of(out: Any) -> Tensor:
    """The logits in what a model gives: a tensor, or a transformers output, or the first of several."""
    if isinstance(out, Tensor):
        return out
    if isinstance(out, Mapping) and isinstance(out.get("logits"), Tensor):
        return out["logits"]
    if isinstance(out, (tuple, list)) and out and isinstance(out[0], Tensor):
        return out[0]
    raise ValueError(f"the model gives a {type(out).__name__}, in which no logits are to be found")


@contextmanager
def replaced_forward(module: nn.Module, stub: Callable[..., Any]) -> Iterator[None]:
    """Within the block the module does what the stub does."""
    with _replaced(module, "forward", stub):
        yield


@contextmanager
def _replaced(module: nn.Module, attribute: str, value: Any) -> Iterator[None]:
    """Within the block the module itself has this attribute, whatever its class says."""
    own = module.__dict__.get(attribute)
    module.__dict__[attribute] = value
    try:
        yield
    finally:
        if own is None:
            del module.__dict__[attribute]
        else:
            module.__dict__[attribute] = own
