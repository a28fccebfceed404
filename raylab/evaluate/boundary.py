"""The activations at one boundary of a model, where there is room for them: on the device, in host memory, on disk."""

from __future__ import annotations

import os
import tempfile

import torch
from torch import Tensor

from raylab.types import Budget

GB = 1024**3


class Boundary:
    """One tensor a batch, each wherever the budget has room for it; reading gives it back on the device."""

    def __init__(self, batches: int, device: torch.device, budget: Budget) -> None:
        self._device = device
        self._budget = budget
        self._held: list[Tensor | None] = [None] * batches
        self._place = [""] * batches

    def __getitem__(self, k: int) -> Tensor:
        held = self._held[k]
        if held is None:
            raise IndexError(f"no activations of batch {k} are held")
        return held.to(self._device, non_blocking=True)

    def __setitem__(self, k: int, tensor: Tensor) -> None:
        self._held[k] = None  # its room is free
        if tensor.untyped_storage().nbytes() > tensor.nbytes:
            tensor = tensor.clone()  # a view would keep all that it is a view of
        gpu = tensor.device.type != "cpu"
        if gpu and self.bytes_held("gpu") + tensor.nbytes <= self._budget.gpu_gb * GB:
            self._held[k], self._place[k] = tensor, "gpu"
        elif self.bytes_held("host") + tensor.nbytes <= self._budget.host_gb * GB:
            self._held[k], self._place[k] = tensor.cpu(), "host"
        else:
            self._held[k], self._place[k] = _on_disk(tensor, self._budget.folder), "disk"

    def bytes_held(self, where: str) -> int:
        """Bytes held on the "gpu", in "host" memory, on "disk"."""
        pairs = zip(self._held, self._place, strict=True)
        return sum(held.nbytes for held, place in pairs if held is not None and place == where)


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
