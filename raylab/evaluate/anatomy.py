"""Where the forward pass of a model can be taken up again, found by watching one pass.

A cut is the output of a module that alone decides all that comes after it: from there on nothing is read that depends
on the samples in another way. What lies below a cut need not be run again when something above it changes. No model has
to be written in stages for that, and none is trusted to be what its name says: every operation of one forward pass over
a few samples is recorded with the storages it reads and writes, and cuts follow from what depends on what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raylab.evaluate.modules import module_by_module


@dataclass(frozen=True, slots=True)
class Cut:
    """A place in the forward pass that one tensor alone crosses."""

    module: str  # whose output it is
    leaf: int  # which tensor of the output, where there are several
    skipped: frozenset[str]  # modules that need not run when the pass is taken up here; `module` is one of them
    time: int  # operations before it
    written: bool  # whether the tensor is changed in place later on: then a copy has to be handed in


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The cuts of a model in the order of the forward pass, and when each of its parameters comes into play."""

    cuts: tuple[Cut, ...]
    first_use: Mapping[str, int]  # parameter -> operations before the first that reads it
    contained: frozenset[str]  # parameters read only while a module runs that owns them, with a row for each sample
    written: frozenset[str]  # modules whose output is changed in place after they have given it; "" is the input
    doubtful: bool  # whether a tensor had as many rows as there are samples, and another dimension too

    def agreed(self, other: Anatomy) -> Anatomy:
        """What this and another, found with another number of samples, both say."""
        places = {(cut.module, cut.leaf) for cut in other.cuts}
        cuts = tuple(cut for cut in self.cuts if (cut.module, cut.leaf) in places)
        contained, written = self.contained & other.contained, self.written | other.written
        return Anatomy(cuts, self.first_use, contained, written, doubtful=False)

    def cut_below(self, parameters: Sequence[str]) -> int | None:
        """Index of the last cut that none of these parameters has an influence on; None: there is none.

        A parameter that the recorded pass did not read is given the benefit of no doubt: it is taken to be the first.
        """
        time = min((self.first_use.get(name, 0) for name in parameters), default=0)
        below = [k for k, cut in enumerate(self.cuts) if cut.time <= time]
        return below[-1] if below else None


def examine(model: nn.Module, inputs: Tensor) -> Anatomy:
    """Watch one forward pass of a model in evaluation mode over `inputs` (samples, ...), two of them or more."""
    trace = _Trace(model, inputs)
    with torch.no_grad(), module_by_module(), trace.watching(), trace:
        trace.returned = _storages(model(inputs), trace)
    return Anatomy(tuple(_cuts(trace, inputs)), trace.first_use(), trace.contained(), trace.written(), trace.doubtful)


@dataclass(slots=True)
class _Call:
    """One call of a module."""

    module: str
    parent: _Call | None
    end: int = -1  # of a call that is not over: none
    made: set[int] = field(default_factory=set)  # storages, by the operations within
    output: Sequence[tuple[int, int]] = ()  # (place, storage) of the tensors it gives that have a row a sample
    tainted: bool = True  # whether the samples have a say in what it gives
    by_rows: bool = True  # whether all that depends on the samples comes and goes with a row for each


@dataclass(slots=True)
class _Operation:
    reads: set[int]
    writes: set[int]
    makes: set[int]
    within: _Call | None
    answers: bool  # gives something that is no tensor, which Python may act upon


class _Trace(TorchDispatchMode):
    """Every operation of a forward pass. A storage is known by a number that is never used twice."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.model = model
        self.samples = len(inputs)
        self.operations: list[_Operation] = []
        self.calls: list[_Call] = []
        self.returned: set[int] = set()
        self.doubtful = False
        self._open: list[_Call] = []
        self._number: dict[int, int] = {}
        self._seen: list[StorageWeakRef] = []  # while it is kept no other storage comes to lie where this one lay
        self._count = 0
        self.input = self._new(inputs)
        self.tainted = {self.input}
        self._parameters = {name: self.number(p) for name, p in model.named_parameters(remove_duplicate=False)}
        self._uses: dict[int, list[tuple[int, tuple[str, ...]]]] = {n: [] for n in self._parameters.values()}

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor's storage."""
        key = tensor.untyped_storage()._cdata
        return self._number[key] if key in self._number else self._new(tensor)

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        storage = tensor.untyped_storage()
        self._number[storage._cdata] = self._count
        self._seen.append(StorageWeakRef(storage))
        return self._count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it read, wrote and made."""
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        reads = {self.number(tensor) for tensor in given}
        there = {tensor.untyped_storage()._cdata for tensor in given}
        for number in reads & self._uses.keys():
            self._uses[number].append((len(self.operations), tuple(call.module for call in self._open)))
        out = func(*args, **kwargs)
        made, answers = set(), False
        for leaf in tree_leaves(out):
            if not isinstance(leaf, Tensor):
                answers |= leaf is not None
            elif leaf.untyped_storage()._cdata not in there:  # else a view of what was given, or changed in place
                made.add(self._new(leaf))
        writes = {self.number(tensor) for tensor in _written(func, args, kwargs)}
        if reads & self.tainted:
            self.tainted |= made | writes
        for call in self._open:
            call.made |= made
        self.operations.append(_Operation(reads, writes, made, self._open[-1] if self._open else None, answers))
        return out

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block the modules report when they begin and what they give."""
        hooks = []
        for name, module in self.model.named_modules():
            if name:
                begin = lambda _, args, kwargs, name=name: self._begin(name, (args, kwargs))  # noqa: E731
                hooks.append(module.register_forward_pre_hook(begin, with_kwargs=True))
                hooks.append(module.register_forward_hook(lambda module, args, out: self._finish(out)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begin(self, name: str, given: Any) -> None:
        call = _Call(name, self._open[-1] if self._open else None, by_rows=self._is_by_rows(given))
        self.calls.append(call)
        self._open.append(call)

    def _finish(self, out: Any) -> Any:
        call = self._open[-1]
        leaves = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if isinstance(out, Tensor) and self.number(out) not in call.made:
            # What it was given, or a view of it: a copy, so that who reads which of the two can be told.
            out = out.clone()
            leaves = [out]
        self._open.pop()
        call.end = len(self.operations)
        call.tainted = any(self.number(leaf) in self.tainted for leaf in leaves)
        call.by_rows &= self._is_by_rows(leaves)
        call.output = [(k, self.number(x)) for k, x in enumerate(leaves) if self._has_rows(x)]
        return out

    def _is_by_rows(self, tensors: Any) -> bool:
        """Whether those of some tensors that depend on the samples have a row for each."""
        depend = [x for x in tree_leaves(tensors) if isinstance(x, Tensor) and self.number(x) in self.tainted]
        return all(self._has_rows(x) for x in depend)

    def _has_rows(self, tensor: Tensor) -> bool:
        """Whether there is a row for each sample. The last states of an LSTM's layers may be as many by chance."""
        rows = tensor.dim() > 0 and len(tensor) == self.samples
        self.doubtful |= rows and self.samples in tensor.shape[1:]
        return rows

    def first_use(self) -> dict[str, int]:
        """Parameter -> index of the first operation that reads it, of those that some operation reads."""
        return {name: self._uses[n][0][0] for name, n in self._parameters.items() if self._uses[n]}

    def contained(self) -> frozenset[str]:
        """Parameters whose every reading happens while a module that owns them runs, on a row for each sample."""
        owners: dict[int, set[str]] = {}
        for name, number in self._parameters.items():
            owners.setdefault(number, set()).add(name.rpartition(".")[0])
        unfit = {"", *(call.module for call in self.calls if not call.by_rows)}
        inside = {
            number
            for number, modules in owners.items()
            if not modules & unfit and all(modules & set(running) for _, running in self._uses[number])
        }
        return frozenset(name for name, number in self._parameters.items() if number in inside)

    def written(self) -> frozenset[str]:
        """Modules whose output is changed in place by what comes after them."""
        last = {number: k for k, operation in enumerate(self.operations) for number in operation.writes}
        found = {call.module for call in self.calls if any(last.get(number, -1) >= call.end for number in call.made)}
        return frozenset(found | ({""} if self.input in last else set()))


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operation changes in place, as its schema says."""
    arguments = func._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
    changed = [given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return [leaf for leaf in tree_leaves(changed) if isinstance(leaf, Tensor)]


def _storages(out: Any, trace: _Trace) -> set[int]:
    leaves = tree_leaves(list(out.values()) if isinstance(out, Mapping) else out)
    return {trace.number(leaf) for leaf in leaves if isinstance(leaf, Tensor)}


def _cuts(trace: _Trace, inputs: Tensor) -> Iterator[Cut]:
    last = {call.module: call.end for call in trace.calls}
    times = Counter(call.module for call in trace.calls)
    # The samples of a text are a few numbers and can be handed in again; images would have to be kept for it.
    source = {trace.input} if inputs.is_floating_point() else set()
    for call in sorted(trace.calls, key=lambda call: call.end):
        if not call.tainted or times[call.module] > 1:
            continue
        later = trace.operations[call.end :]
        crossing = [(leaf, number) for leaf, number in call.output if _is_read(number, later, trace.returned)]
        skipped = [other for other in _over(trace, call) if other.tainted and last[other.module] <= call.end]
        if len(crossing) != 1 or call not in skipped:
            continue
        leaf, number = crossing[0]
        garbage = source.union(*(other.made for other in skipped)) - {number}
        if _is_cut(trace, call, number, skipped, garbage) and not _may_turn(trace, call):
            written = any(number in operation.writes for operation in later)
            yield Cut(call.module, leaf, frozenset(other.module for other in skipped), call.end, written)


def _is_read(number: int, later: Sequence[_Operation], returned: set[int]) -> bool:
    return number in returned or any(number in operation.reads for operation in later)


def _over(trace: _Trace, call: _Call) -> list[_Call]:
    """The calls that are over when this one is, and lie in none that is over."""
    over = [other for other in trace.calls if other.end <= call.end]
    return [other for other in over if other.parent is None or other.parent.end > call.end]


def _is_cut(trace: _Trace, call: _Call, crossing: int, skipped: Sequence[_Call], garbage: set[int]) -> bool:
    """Whether nothing after the call reads what would be garbage if the skipped modules did not run."""
    inside = {id(other) for other in skipped}
    for operation in trace.operations[: call.end]:
        if operation.reads & garbage and not _within(operation, inside):
            if operation.answers:
                return False
            garbage |= operation.makes | operation.writes
    if crossing in garbage or trace.returned & garbage:
        return False
    return not any(operation.reads & garbage for operation in trace.operations[call.end :])


def _may_turn(trace: _Trace, call: _Call) -> bool:
    """Whether what is still running asks about the samples later on: another answer may lead to what was skipped."""
    running: set[int | None] = {None}
    parent = call.parent
    while parent is not None:
        running.add(id(parent))
        parent = parent.parent
    return any(
        operation.answers
        and operation.reads & trace.tainted
        and (None if operation.within is None else id(operation.within)) in running
        for operation in trace.operations[call.end :]
    )


def _within(operation: _Operation, calls: set[int]) -> bool:
    call = operation.within
    while call is not None:
        if id(call) in calls:
            return True
        call = call.parent
    return False
