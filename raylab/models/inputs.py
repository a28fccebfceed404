"""From samples as they are stored to what a network takes, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from raylab.data import ClassificationData

Prepare = Callable[["Tensor"], "Tensor"]


def normalising(
    mean: Sequence[float], std: Sequence[float], device: str | torch.device, dtype: torch.dtype = torch.float32
) -> Prepare:
    """Of a batch of images (samples, channels, height, width), uint8 or floats, (x - mean) / std; of uint8 x is /255.

    mean, std: by channel; empty where nothing is normalised.
    """
    middle = torch.tensor(tuple(mean) or (0.0,), device=device).view(-1, 1, 1)
    spread = torch.tensor(tuple(std) or (1.0,), device=device).view(-1, 1, 1)

    def prepare(images: Tensor) -> Tensor:
        whole = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
        normalised = ((whole - middle) / spread if mean else whole).to(dtype)
        # Convolutions are up to a third faster with the channels of a pixel side by side.
        return normalised.contiguous(memory_format=torch.channels_last) if normalised.dim() == 4 else normalised

    return prepare


def as_samples(data: ClassificationData) -> Prepare:
    """Of a batch as it is stored, samples in their own shape: images (samples, channels, height, width)."""
    shape = data.sample_shape
    return lambda batch: batch.reshape(-1, *shape)


def preparing(data: ClassificationData, device: str | torch.device, *, flat: bool) -> Prepare:
    """Of samples in their own shape, or as they are stored, what a network takes: images, or flat (samples, inputs)."""
    shaped, normalise = as_samples(data), normalising(data.mean, data.std, device)
    return lambda batch: normalise(shaped(batch)).flatten(1) if flat else normalise(shaped(batch))
