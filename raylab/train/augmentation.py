"""Training images, moved and mirrored, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 4  # pixels on each side, as He et al. (2016) crop CIFAR-10


def augmenting(kind: str, rng: np.random.Generator, fill: float) -> Callable[[Tensor], Tensor]:
    """Of a batch of images (samples, channels, height, width) another one, drawn from `rng` on any device alike.

    kind: "none"; "crop", each image cropped from one with `PADDING` more pixels of the value `fill` on each side;
    "crop_flip", and half of them mirrored.
    """
    if kind == "none":
        return lambda images: images
    if kind == "crop":
        return lambda images: _cropped(images, rng, fill)
    return lambda images: _mirrored(_cropped(images, rng, fill), rng)


def _cropped(images: Tensor, rng: np.random.Generator, fill: float) -> Tensor:
    import torch

    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, [PADDING] * 4, value=fill)
    down, right = torch.from_numpy(rng.integers(0, 2 * PADDING + 1, (2, count))).to(images.device)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # views of every crop: only those taken are copied
    return windows[torch.arange(count, device=images.device), :, down, right]


def _mirrored(images: Tensor, rng: np.random.Generator) -> Tensor:
    import torch

    chosen = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)
