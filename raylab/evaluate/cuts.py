"""Where a forward pass can be taken up again, by what depends on what.

A cut lies where a module has just given its output. What has run by then need not run again; the tensors that are asked
for later on have to be handed in: the output itself, and beside it those on which skip connections rely. Operations
between modules are repeated, since the forward of whatever is still running begins from its top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raylab.evaluate.trace import Call, Given, Operation, Trace


@dataclass(frozen=True, slots=True)
class Crossing:
    """A tensor that has to be handed in where a pass is taken up."""

    module: str  # whose output it is
    leaf: int  # which tensor of the output, where there are several
    written: bool  # whether it is changed in place later on: then a copy has to be handed in


@dataclass(frozen=True, slots=True)
class Cut:
    """A place in the forward pass."""

    crossing: tuple[Crossing, ...]  # all that comes after depends on the samples by these alone; the last is the latest
    skipped: frozenset[str]  # modules that need not run when the pass is taken up here; those of `crossing` among them
    time: int  # operations before it
    products: int  # of which so many take the time
    nbytes: int  # of what crosses, a sample

    @property
    def module(self) -> str:
        """The module that has just given its output."""
        return self.crossing[-1].module

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """What crosses, by name."""
        return tuple((each.module, each.leaf) for each in self.crossing)


def cuts_of(trace: Trace, *, keeps_inputs: bool) -> tuple[Cut, ...]:
    """Every cut that is worth its memory, in the order of the pass. keeps_inputs: whether the samples are handed in."""
    kept: list[Cut] = []
    for cut in _Finder(trace, keeps_inputs).cuts():
        # To hold more than an earlier cut does, in order to save a norm or an activation, is not.
        if all(other.products < cut.products or other.nbytes >= cut.nbytes for other in kept):
            kept.append(cut)
    return tuple(kept)


class _Finder:
    def __init__(self, trace: Trace, keeps_inputs: bool) -> None:
        self._trace = trace
        self._source = set() if keeps_inputs else {trace.input}
        self._last_call = {call.module: call.end for call in trace.calls}
        self._times = Counter(call.module for call in trace.calls)
        self._last_read = {n: k for k, operation in enumerate(trace.operations) for n in operation.reads}
        self._writes: dict[int, list[int]] = {}  # storage -> the operations that change it
        for k, operation in enumerate(trace.operations):
            for number in operation.writes:
                self._writes.setdefault(number, []).append(k)

    def cuts(self) -> Iterator[Cut]:
        """Wherever a module ends whose output all that follows goes through, alone or with that of others."""
        for call in sorted(self._trace.calls, key=lambda call: call.end):
            if call.tainted and self._times[call.module] == 1:
                skipped = self._skipped(call)
                crossing = self._crossing(call, skipped) if call in skipped else None
                if crossing and not self._may_turn(call):
                    yield self._cut(call, skipped, crossing)

    def _cut(self, call: Call, skipped: set[Call], crossing: Sequence[tuple[Call, Given]]) -> Cut:
        return Cut(
            tuple(Crossing(giver.module, x.leaf, self._is_written(x.number, call.end)) for giver, x in crossing),
            frozenset(other.module for other in skipped),
            time=call.end,
            products=sum(operation.product for operation in self._trace.operations[: call.end]),
            nbytes=sum(x.nbytes for _, x in crossing),
        )

    def _skipped(self, call: Call) -> set[Call]:
        """The calls that are over for good when this one is, and lie in none that is over."""
        over = [other for other in self._trace.calls if other.end <= call.end]
        outermost = [other for other in over if other.parent is None or other.parent.end > call.end]
        return {other for other in outermost if other.tainted and self._last_call[other.module] <= call.end}

    def _crossing(self, call: Call, skipped: set[Call]) -> list[tuple[Call, Given]] | None:
        """What the skipped modules give and the rest of the pass asks for. None: it asks for more than they give."""
        lost = self._source.union(*(other.made | other.wrote for other in skipped))
        repeated = [each for each in self._trace.operations[: call.end] if not each.lies_in(skipped)]
        if _asks(repeated, lost):
            return None
        needed = self._needed(call.end, repeated)
        if any(not needed.isdisjoint(each.passed) for each in skipped):
            return None  # a stub does not hand on what the module was handed
        asked_for = needed & lost
        givers = [(giver, x) for giver in skipped for x in giver.output if x.number in asked_for]
        givers.sort(key=lambda pair: (pair[0].end, pair[1].leaf))
        if sorted(x.number for _, x in givers) != sorted(asked_for) or not givers or givers[-1][0] is not call:
            return None
        right = self._are_unchanged(givers, call.end) and not self._breaks_an_alias(skipped, call.end, needed)
        return givers if right else None

    def _needed(self, time: int, repeated: Sequence[Operation]) -> set[int]:
        """What is read from some time on, and what repeated operations make that out of."""
        needed = {number for number, last in self._last_read.items() if last >= time} | self._trace.returned
        for operation in reversed(repeated):
            if not needed.isdisjoint(operation.makes) or not needed.isdisjoint(operation.writes):
                needed |= operation.reads
        return needed

    def _are_unchanged(self, givers: Sequence[tuple[Call, Given]], time: int) -> bool:
        """Whether each tensor is at some time still what its module gave, and it gave it once."""
        return not any(
            self._times[giver.module] > 1 or self._is_written(x.number, giver.end, time) for giver, x in givers
        )

    def _breaks_an_alias(self, skipped: set[Call], time: int, needed: set[int]) -> bool:
        """Whether two tensors that are needed were one and change, and are two if the skipped modules do not run."""
        for family in self._trace.families:
            there = [each for each in family if each.made_by is None or each.made_by.end <= time]
            since = [each.made_by.end for each in there if each.made_by is not None and each.made_by.lies_in(skipped)]
            together = bool(since) and sum(each.number in needed for each in there) > 1
            if together and any(self._is_written(each.number, min(since)) for each in there):
                return True
        return False

    def _is_written(self, number: int, since: int, until: int | None = None) -> bool:
        """Whether a storage is changed in place by one of some operations."""
        return any(since <= k and (until is None or k < until) for k in self._writes.get(number, ()))

    def _may_turn(self, call: Call) -> bool:
        """Whether what is still running asks about samples or weights later on: it may lead to what was skipped."""
        running = {None, *call.parents()}
        return any(
            operation.answers and operation.reads & self._trace.variable and operation.within in running
            for operation in self._trace.operations[call.end :]
        )


def _asks(repeated: Sequence[Operation], lost: set[int]) -> bool:
    """Whether an answer that Python may act upon comes from what is lost."""
    spoilt = set(lost)
    for operation in repeated:
        if operation.reads & spoilt:
            if operation.answers:
                return True
            spoilt |= operation.makes | operation.writes
    return False
