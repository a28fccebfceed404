"""Watching how a model is built: every operation of torch passes here, and fills are noted rather than done.

A tensor that is only filled, scaled and copied never gets values, nor memory of the machine (torch.empty takes none
until it is written to). Where an operation that is not known here wants to read such a tensor, it gets values drawn
from the laws noted so far, the operation is done, and what it writes counts as computed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from raylab.models.recording import elementwise
from raylab.models.recording.entry_laws import Law, normal
from raylab.models.recording.memory import Patches, Region, filled, law_at, mapped, whole

# What leaves a tensor's memory as it is: new memory, and other looks at the same.
UNREAD = frozenset({"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}) | {
    *("set_", "_reshape_alias", "_unsafe_view", "unsqueeze_", "squeeze_", "transpose_", "t_", "as_strided_", "detach_")
}
ESCAPES = frozenset({"numpy", "tolist", "__array__", "__reduce_ex__", "__dlpack__"})  # values read behind torch's back
DECISIONS = frozenset({"_local_scalar_dense", "equal", "is_nonzero"})  # Python sees a value, and may act upon it


@dataclass
class Memory:
    """What is known of one storage."""

    ref: StorageWeakRef  # keeps the address from being given to another
    patches: Patches | None = None  # None: computed, the values are in the memory
    random: bool = False  # computed from random numbers
    dtype: torch.dtype | None = None  # of the entries that the patches count
    real: bool = False  # whether the patches have been drawn


class Recorder(TorchDispatchMode):
    """While it is entered, what this thread builds is noted in it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed  # of values that are drawn because something reads them
        self.decided = False  # Python has seen a random value: from then on nothing is a plain fill
        self._memories: dict[int, Memory] = {}

    def memory(self, tensor: Tensor) -> Memory:
        """What is known of the storage beneath a tensor on the CPU."""
        ref = StorageWeakRef(tensor.untyped_storage())
        return self._memories.setdefault(ref.cdata, Memory(ref))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, for seconds in each process, only to keep it out of the below

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        if func.is_view or func.overloadpacket.__name__ in UNREAD:
            return self._unread(func, args, kwargs)
        done = None if self.decided else self._noted(func.overloadpacket.__name__, args, kwargs)
        return self._computed(func, args, kwargs) if done is None else done

    def fill(self, tensor: Tensor, law: Law) -> bool:
        """Note that a tensor was filled; False where that is not simple, so that it has to be done."""
        if not _simple(tensor) or self.decided:
            return False
        memory, region = self.memory(tensor), region_of(tensor)
        if _covers(tensor, region):
            self.empty(tensor)
        patches = self._patches(tensor)
        return patches is not None and self._note(memory, filled(patches, region, law))

    def map(self, tensor: Tensor, function: Callable[[Law], Law | None]) -> bool:
        """Note that a function was applied to each entry, in place; False where that is not simple."""
        patches = self._patches(tensor)
        return patches is not None and self._note(self.memory(tensor), mapped(patches, region_of(tensor), function))

    def law(self, tensor: Tensor) -> Law | None:
        """The one law of a tensor's entries, or None."""
        patches = self._patches(tensor)
        return None if patches is None else law_at(patches, region_of(tensor))

    def empty(self, tensor: Tensor) -> None:
        """Note that a tensor is new, or about to be overwritten: whatever is in its storage does not count."""
        memory = self.memory(tensor)
        memory.patches, memory.dtype, memory.random, memory.real = (), tensor.dtype, False, False

    def _patches(self, tensor: Tensor) -> Patches | None:
        """What was noted of a tensor's storage; None where it was computed, or has entries of another kind."""
        memory = self.memory(tensor) if _simple(tensor) else None
        return memory.patches if memory is not None and memory.dtype == tensor.dtype else None

    def escaped(self, tensor: Tensor) -> None:
        """The values are about to be read, and perhaps written, by what is not torch."""
        memory = self._realise(tensor)
        self.decided |= memory.random
        memory.patches = None

    def number(self, value: object) -> float | None:
        """A number that may be the argument of a noted operation: not a random one."""
        if isinstance(value, Tensor):
            if value.numel() != 1 or not _on_cpu(value) or self._realise(value).random:
                return None
            value = value.item()
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _note(self, memory: Memory, patches: Patches | None) -> bool:
        if patches is None:
            return False
        memory.patches, memory.real = patches, False
        memory.random = any(not law.constant for _, law in patches)
        return True

    def _unread(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if "empty" in func.overloadpacket.__name__ and _on_cpu(result) and result.is_floating_point():
            self.empty(result)
        return result

    def _noted(self, name: str, args: Any, kwargs: Any) -> Tensor | None:
        """What an operation gives back where it could be noted rather than done."""
        if (law := elementwise.fill(name, args, kwargs, self.number)) is not None:
            target = args[0] if elementwise.in_place(name) else elementwise.like(name, args, kwargs)
            return target if target is not None and self._fill_new_or_old(name, target, law) else None
        if name == "copy_":
            return self._copied(*args[:2])
        if "out" in kwargs or not args or not isinstance(args[0], Tensor):
            return None
        function = elementwise.function(name, args, kwargs, self.number)
        if function is None or not _simple(args[0]):
            return None
        if elementwise.in_place(name):
            return args[0] if self.map(args[0], function) else None
        return self._mapped_copy(args[0], kwargs, function)

    def _fill_new_or_old(self, name: str, target: Tensor, law: Law) -> bool:
        if not elementwise.in_place(name) and _simple(target):
            self.empty(target)
        return _simple(target) and self.fill(target, law)

    def _copied(self, target: Tensor, source: Tensor) -> Tensor | None:
        """A copy has the law of its source: only over the whole, or two parts of a tensor might be copies of one."""
        if not (_simple(target) and _simple(source)) or target.shape != source.shape:
            return None
        law = self.law(source)
        if law is None or not (law.constant or _covers(target, region_of(target))):
            return None
        return target if self.fill(target, law) else None

    def _mapped_copy(self, source: Tensor, kwargs: Any, function: Callable[[Law], Law | None]) -> Tensor | None:
        law = self.law(source)
        law = None if law is None else function(law)
        layout = {key: kwargs[key] for key in ("dtype", "memory_format") if kwargs.get(key) is not None}
        if law is None or str(kwargs.get("device") or "cpu") != "cpu":
            return None
        result = torch.empty_like(source, **layout)
        if not result.is_floating_point():
            return None
        self.empty(result)
        return result if self.fill(result, law) else None

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Do an operation, on real values, and note what it wrote as computed."""
        name = func.overloadpacket.__name__
        if name == "linalg_qr" and self.memory(args[0]).random:
            return self._unsolved(func, args[0])
        written, overwritten = _written(func, args, kwargs)
        anew = {id(t) for t in overwritten if _covers(t, region_of(t))}
        read = [self._realise(t) for t in _tensors((args, kwargs)) if id(t) not in anew]
        random = torch.Tag.nondeterministic_seeded in func.tags or any(memory.random for memory in read)
        known = {self.memory(t).ref.cdata for t in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        new = [t for t in _tensors(result) if StorageWeakRef(t.untyped_storage()).cdata not in known]
        for tensor in (*written, *new):
            self._mark_computed(tensor, random)
        self.decided |= random and name in DECISIONS
        return result

    def _mark_computed(self, tensor: Tensor, random: bool) -> None:
        memory = self.memory(tensor)
        memory.patches, memory.random = None, random or self.decided

    def _unsolved(self, func: Any, matrix: Tensor) -> tuple[Tensor, ...]:
        """Zeros in place of the factors of random numbers: those of an embedding take minutes, and serve nothing."""
        factors = func(torch.empty(matrix.shape, dtype=matrix.dtype, device="meta"))
        zeros = tuple(torch.zeros(factor.shape, dtype=factor.dtype) for factor in factors)
        for tensor in zeros:
            self._mark_computed(tensor, random=True)
        return zeros

    def _realise(self, tensor: Tensor) -> Memory:
        """Draw what was noted of a storage, so that it can be read."""
        memory = self.memory(tensor)
        if memory.patches is not None and not memory.real:
            rng = np.random.default_rng([self.seed, len(self._memories)])
            flat = torch.empty(0, dtype=memory.dtype).set_(tensor.untyped_storage())
            for region, law in memory.patches:
                flat.as_strided(region.size, region.stride, region.offset).copy_(
                    torch.from_numpy(law.draw(rng, region.size))
                )
            memory.real = True
        return memory


class Escapes(TorchFunctionMode):
    """Sees what reads a tensor's memory without an operation of torch."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of a function of torch."""
        if getattr(func, "__name__", "") in ESCAPES and _on_cpu(args[0]):
            with _disable_current_modes():
                self._recorder.escaped(args[0])
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def recording(seed: int) -> Iterator[Recorder]:
    """A recorder of what this thread builds within the block."""
    recorder = Recorder(seed)
    with _truncated_normals(recorder), Escapes(recorder), recorder:
        yield recorder


@contextlib.contextmanager
def _truncated_normals(recorder: Recorder) -> Iterator[None]:
    """torch.nn.init.trunc_normal_ draws until all entries are within the bounds: seen as one fill, not as a loop."""
    original, thread = torch.nn.init._no_grad_trunc_normal_, threading.get_ident()

    def note(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any = None) -> Tensor:
        if threading.get_ident() == thread and _simple(tensor):
            with _disable_current_modes():
                if recorder.fill(tensor, normal(mean, std, a, b)):
                    return tensor
        return original(tensor, mean, std, a, b, generator=generator)

    torch.nn.init._no_grad_trunc_normal_ = note
    try:
        yield
    finally:
        torch.nn.init._no_grad_trunc_normal_ = original


def region_of(tensor: Tensor) -> Region:
    """Where a tensor lies in its storage."""
    return Region(int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()))


def _covers(tensor: Tensor, region: Region) -> bool:
    return region.holds(whole(tensor.untyped_storage().nbytes() // tensor.element_size()))


def _on_cpu(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.device.type == "cpu" and tensor.layout == torch.strided


def _simple(tensor: Tensor) -> bool:
    return _on_cpu(tensor) and tensor.is_floating_point() and tensor.numel() > 0


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if _on_cpu(leaf)]


def _written(func: Any, args: Any, kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The arguments that an operation writes to, and those of them that it overwrites without reading them."""
    written, overwritten = [], []
    for k, argument in enumerate(func._schema.arguments):
        value = args[k] if k < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += _tensors(value)
            if argument.is_out or func.overloadpacket.__name__ in ("copy_", "fill_", "zero_"):
                overwritten += _tensors(value)
    return written, overwritten
