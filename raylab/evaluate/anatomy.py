"""Where the forward pass of a model can be taken up again, found by watching one pass.

What lies below a cut need not be run again when something above it changes. No model has to be written in stages for
that, and none is trusted to be what its name says: every operation of one forward pass over a few samples is recorded
with the storages it reads and writes (`trace`), and cuts follow from what depends on what (`cuts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from raylab.evaluate.cuts import Cut, cuts_of
from raylab.evaluate.trace import Trace


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The cuts of a model in the order of the forward pass, and when each of its parameters comes into play."""

    cuts: tuple[Cut, ...]
    first_use: Mapping[str, int]  # parameter -> operations before the first that reads it
    contained: frozenset[str]  # parameters read only while a module runs that owns them, with a row for each sample
    written: frozenset[str]  # modules whose output is changed in place after they have given it; "" is the input
    constant: frozenset[tuple[str, int]]  # (module, which tensor of its output) that is the same whatever the samples
    doubtful: bool  # whether a tensor had as many rows as there are samples, and another dimension too

    def agreed(self, other: Anatomy) -> Anatomy:
        """What this and another, found with another number of samples, both say."""
        places = {cut.places for cut in other.cuts}
        cuts = tuple(cut for cut in self.cuts if cut.places in places)
        contained, written = self.contained & other.contained, self.written | other.written
        return Anatomy(cuts, self.first_use, contained, written, self.constant & other.constant, doubtful=False)

    def within(self, fits: Callable[[Cut], bool]) -> Anatomy:
        """With those cuts alone that fit, and those that a single tensor crosses."""
        return replace(self, cuts=tuple(cut for cut in self.cuts if len(cut.crossing) == 1 or fits(cut)))

    def without(self, cut: Cut) -> Anatomy:
        """With all cuts but one."""
        return replace(self, cuts=tuple(other for other in self.cuts if other != cut))

    def cut_below(self, parameters: Sequence[str]) -> int:
        """Index of the last cut that none of these parameters has an influence on; -1, the inputs: there is none.

        A parameter that the recorded pass did not read is given the benefit of no doubt: it is taken to be the first.
        """
        time = min((self.first_use.get(name, 0) for name in parameters), default=0)
        below = [k for k, cut in enumerate(self.cuts) if cut.time <= time]
        return below[-1] if below else -1


def examine(model: nn.Module, inputs: Tensor) -> Anatomy:
    """Watch one forward pass of a model in evaluation mode over `inputs` (samples, ...), two of them or more.

    Tensors that lie in no storage, sparse ones or vmap's, cannot be watched: the model has no cuts.
    """
    try:
        trace = Trace.of(model, inputs)
    except NotImplementedError:
        return Anatomy((), {}, frozenset(), frozenset({""}), frozenset(), doubtful=False)
    # The samples of a text are a few numbers and can be handed in again; images would have to be kept for it.
    cuts = cuts_of(trace, keeps_inputs=not inputs.is_floating_point())
    constant = frozenset((call.module, k) for call in trace.calls for k in call.constant)
    return Anatomy(cuts, trace.first_use(), trace.contained(), trace.written(), constant, trace.doubtful)
