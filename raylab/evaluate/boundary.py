"""The activations at one boundary of a model, where there is room for them: on the device, in host memory, on disk."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor

from raylab.types import Budget

GB = 1024**3


class Boundary:
    """One tensor a batch, each wherever the budget has room for it; reading gives it back on the device."""

    def __init__(self, batches: int, device: torch.device, budget: Budget) -> None:
        self._device = device
        self._budget = budget
        self._held: list[Tensor | Path | None] = [None] * batches
        self._folder: Path | None = None

    def __getitem__(self, k: int) -> Tensor:
        held = self._held[k]
        if held is None:
            raise IndexError(f"no activations of batch {k} are held")
        if isinstance(held, Path):
            held = torch.load(held, mmap=True, weights_only=True)
        return held.to(self._device, non_blocking=True)

    def __setitem__(self, k: int, tensor: Tensor) -> None:
        self._release(k)
        if tensor.untyped_storage().nbytes() > tensor.nbytes:
            tensor = tensor.clone()  # a view would keep all that it is a view of
        gpu = tensor.device.type != "cpu"
        if gpu and self.bytes_held("gpu") + tensor.nbytes <= self._budget.gpu_gb * GB:
            self._held[k] = tensor
        elif self.bytes_held("host") + tensor.nbytes <= self._budget.host_gb * GB:
            self._held[k] = tensor.cpu()
        else:
            self._held[k] = self._written(k, tensor)

    def bytes_held(self, where: str) -> int:
        """Bytes held on the "gpu", in "host" memory, on "disk"."""
        return sum(_size(held) for held in self._held if held is not None and _place(held) == where)

    def _release(self, k: int) -> None:
        held, self._held[k] = self._held[k], None
        if isinstance(held, Path):
            held.unlink()

    def _written(self, k: int, tensor: Tensor) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="raylab-activations-", dir=self._budget.folder))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # at the latest when Python ends
        path = self._folder / f"{k}.pt"
        torch.save(tensor.cpu(), path)
        return path


def _place(held: Tensor | Path) -> str:
    if isinstance(held, Path):
        return "disk"
    return "host" if held.device.type == "cpu" else "gpu"


def _size(held: Tensor | Path) -> int:
    return held.stat().st_size if isinstance(held, Path) else held.nbytes
