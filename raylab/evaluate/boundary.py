"""The activations at one boundary of a model, where there is room for them: on the device, in host memory, on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raylab.types import Budget

GB = 1024**3


class Boundary:
    """The tensors that cross a cut, a batch at a time, each wherever the budget has room for it."""

    def __init__(self, batches: int, device: torch.device, budget: Budget) -> None:
        self._device = device
        self._budget = budget
        self._held: list[list[_Held] | None] = [None] * batches

    def rows(self, k: int, start: int, stop: int) -> tuple[Tensor, ...]:
        """Some rows of a batch, on the device."""
        held = self._held[k]
        if held is None:
            raise IndexError(f"no activations of batch {k} are held")
        return tuple(each.tensor[start:stop].to(self._device, non_blocking=True) for each in held)

    def __setitem__(self, k: int, tensors: Sequence[Tensor]) -> None:
        self._held[k] = held = []  # the room of the old ones is free
        for tensor in tensors:
            is_part = tensor.untyped_storage().nbytes() > tensor.nbytes  # it would keep all that it is a part of
            held.append(self._kept(tensor.clone() if is_part else tensor))

    def _kept(self, tensor: Tensor) -> _Held:
        gpu = tensor.device.type != "cpu"
        if gpu and self.bytes_held("gpu") + tensor.nbytes <= self._budget.gpu_gb * GB:
            return _Held("gpu", tensor)
        if self.bytes_held("host") + tensor.nbytes <= self._budget.host_gb * GB:
            return _Held("host", tensor.cpu())
        return _Held("disk", _on_disk(tensor, self._budget.folder))

    def bytes_held(self, where: str) -> int:
        """Bytes held on the "gpu", in "host" memory, on "disk"."""
        every = [each for held in self._held if held for each in held]
        return sum(each.tensor.nbytes for each in every if each.place == where)

    def leave_gpu(self) -> bool:
        """Free the GPU's memory of what is held there, for good. Whether there was any."""
        self._budget = replace(self._budget, gpu_gb=0)
        found = self.bytes_held("gpu") > 0
        for held in filter(None, self._held):
            for j, each in enumerate(held):
                held[j] = self._kept(each.tensor) if each.place == "gpu" else each
        return found


@dataclass(frozen=True, slots=True)
class _Held:
    place: str  # "gpu", "host" or "disk"
    tensor: Tensor


def _on_disk(tensor: Tensor, folder: str | None) -> Tensor:
    """A copy in the memory map of a file that has lost its name already.

    The space is free again when the tensor is gone, or the process, even where it is killed, as Ray ends its workers.
    """
    with tempfile.NamedTemporaryFile(prefix="raylab-activations-", dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and not the end of the process later on
            os.posix_fallocate(file.fileno(), 0, tensor.nbytes)
        mapped = torch.from_file(file.name, shared=True, size=tensor.numel(), dtype=tensor.dtype)
    like = torch.empty_like(tensor, device="meta")  # as dense: an expanded tensor has entries in one place
    return mapped.as_strided(like.shape, like.stride()).copy_(tensor)
