"""One forward pass of a model, operation by operation: which storages each reads and writes, and in which module."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from raylab.evaluate.modules import module_by_module


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that a module gives, with a row for each sample."""

    leaf: int  # which tensor of the output
    number: int
    nbytes: int  # of a row


@dataclass(slots=True, eq=False)
class Call:
    """One call of a module."""

    module: str
    parent: Call | None
    end: int = -1  # operations before it was over; of a call that is not: none
    made: set[int] = field(default_factory=set)  # storages, by the operations within
    wrote: set[int] = field(default_factory=set)  # storages that were changed in place
    passed: set[int] = field(default_factory=set)  # storages in its output that it has not made: a mask it was given
    output: Sequence[Given] = ()
    constant: Sequence[int] = ()  # which tensors of the output are the same whatever the samples
    tainted: bool = True  # whether the samples have a say in what it gives
    by_rows: bool = True  # whether all that it gets from the samples and all that it gives has a row for each

    def parents(self) -> Iterator[Call]:
        """The calls that it happens within, from the inside out."""
        parent = self.parent
        while parent is not None:
            yield parent
            parent = parent.parent

    def lies_in(self, calls: set[Call]) -> bool:
        """Whether it is one of some calls or happens within one."""
        return self in calls or not calls.isdisjoint(self.parents())


@dataclass(slots=True)
class Alias:
    """A storage that is a copy only here: in the model the module gave back what it had been given."""

    number: int
    made_by: Call | None  # None: it is the first of its family


@dataclass(slots=True)
class Operation:
    """What torch was asked for."""

    reads: set[int]
    writes: set[int]  # with all that were one with it by then
    makes: set[int]
    within: Call | None
    answers: bool  # gives something that is no tensor, which Python may act upon
    product: bool  # a matrix product, a convolution, an attention: what takes the time

    def lies_in(self, calls: set[Call]) -> bool:
        """Whether it happens within one of some calls."""
        return self.within is not None and self.within.lies_in(calls)


class Trace(TorchDispatchMode):
    """Every operation of a forward pass. A storage is known by a number that is never used twice."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.model = model
        self.samples = len(inputs)
        self.operations: list[Operation] = []
        self.calls: list[Call] = []
        self.returned: set[int] = set()
        self.doubtful = False  # whether a tensor had as many rows as there are samples, and another dimension too
        self._open: list[Call] = []
        self._number: dict[int, int] = {}
        self._alive: list[weakref.ref[Any]] = []  # another storage may come to lie where one has lain
        self._count = 0
        self._family: dict[int, list[Alias]] = {}  # storage -> those that are one with it in the model
        self.input = self._new(inputs)
        self.tainted = {self.input}  # storages that the samples have a say in
        self._parameters = {name: self.number(p) for name, p in model.named_parameters(remove_duplicate=False)}
        self.variable = {self.input, *self._parameters.values()}  # the samples, or parameters, which may be changed
        self._matrices = {self.number(p) for p in model.parameters() if p.ndim > 1}
        self._uses: dict[int, list[tuple[int, tuple[str, ...]]]] = {n: [] for n in self._parameters.values()}

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, inputs: Tensor) -> Trace:
        """Watch one pass over some samples."""
        trace = cls(model, inputs)
        with module_by_module(), trace._watching(), trace, _PastTorch(trace):
            out = model(inputs)
        leaves = tree_leaves(list(out.values()) if isinstance(out, Mapping) else out)
        trace.returned = {trace.number(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        return trace

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor's storage."""
        key = tensor.untyped_storage()._cdata
        return self._number[key] if key in self._number else self._new(tensor)

    @property
    def families(self) -> list[list[Alias]]:
        """Storages that are one in the model, in the order in which they came about."""
        return list({id(family): family for family in self._family.values()}.values())

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        storage = tensor.untyped_storage()
        self._number[key := storage._cdata] = self._count
        # Not StorageWeakRef: it keeps a hundred bytes of each, between which the heap falls to pieces.
        self._alive.append(weakref.ref(storage, lambda _: self._number.pop(key, None)))
        return self._count

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, for seconds in each process, only to keep it out of the below

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
        changed = {self.number(tensor) for tensor in _written(func, args, kwargs)}
        writes = changed.union(*({alias.number for alias in self._family.get(number, ())} for number in changed))
        if reads & self.tainted:
            self.tainted |= made | writes
        if reads & self.variable:
            self.variable |= made | writes
        for call in self._open:
            call.made |= made
            call.wrote |= writes
        product = bool(made) and (func._overloadpacket in flop_registry or bool(reads & self._matrices))
        self.operations.append(Operation(reads, writes, made, self._within, answers, product))
        return out

    def answered(self, tensor: Tensor) -> None:
        """Note that Python has got all of a tensor's numbers past torch's operations."""
        reads = {self.number(tensor)}
        self.operations.append(Operation(reads, set(), set(), self._within, answers=True, product=False))

    @property
    def _within(self) -> Call | None:
        return self._open[-1] if self._open else None

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Within the block the modules report when they begin and what they give."""
        with ExitStack() as stack:
            for name, module in self.model.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                    begin = lambda _, args, kwargs, name=name: self._begin(name, (args, kwargs))  # noqa: E731
                    stack.enter_context(module.register_forward_pre_hook(begin, with_kwargs=True))
                    stack.enter_context(module.register_forward_hook(lambda module, args, out: self._finish(out)))
            yield

    def _begin(self, name: str, given: Any) -> None:
        call = Call(name, self._open[-1] if self._open else None, by_rows=self._is_by_rows(given))
        self.calls.append(call)
        self._open.append(call)

    def _finish(self, out: Any) -> Any:
        call = self._open[-1]
        leaves = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if isinstance(out, Tensor) and self.number(out) not in call.made:
            # What it was given, or a view of it: a copy, so that who reads which of the two can be told.
            same, out = self.number(out), out.clone()
            family = self._family.setdefault(same, [Alias(same, None)])
            family.append(Alias(self.number(out), call))
            self._family[self.number(out)] = family
            leaves = [out]
        self._open.pop()
        call.end = len(self.operations)
        call.tainted = any(self.number(leaf) in self.tainted for leaf in leaves)
        call.constant = [k for k, leaf in enumerate(leaves) if self.number(leaf) not in self.tainted]
        call.passed = {self.number(leaf) for leaf in leaves} - call.made
        call.by_rows &= all(self.number(leaf) in self.tainted and self._has_rows(leaf) for leaf in leaves)
        rows = [(k, x) for k, x in enumerate(leaves) if self._has_rows(x)]
        call.output = [Given(k, self.number(x), x.nbytes // self.samples) for k, x in rows]
        return out

    def _is_by_rows(self, tensors: Any) -> bool:
        """Whether those of some tensors that depend on the samples have a row for each, and others cannot seem to."""
        leaves = [x for x in tree_leaves(tensors) if isinstance(x, Tensor)]
        return all(self._has_rows(x) if self.number(x) in self.tainted else x.dim() == 0 or len(x) == 1 for x in leaves)

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
        """Modules whose output is changed in place by what comes after them; "" is the input."""
        last = {number: k for k, operation in enumerate(self.operations) for number in operation.writes}
        found = {call.module for call in self.calls if any(last.get(number, -1) >= call.end for number in call.made)}
        return frozenset(found | ({""} if self.input in last else set()))


class _PastTorch(TorchFunctionMode):
    """Sees what hands a tensor's numbers to Python or numpy without an operation."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked for, noting it."""
        if func in _PAST_TORCH:
            self._trace.answered(args[0])
        return func(*args, **(kwargs or {}))


_PAST_TORCH = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operation changes in place, as its schema says."""
    arguments = func._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
    changed = [given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return [leaf for leaf in tree_leaves(changed) if isinstance(leaf, Tensor)]
