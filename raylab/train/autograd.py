"""Training of any torch classifier by autograd and torch's own optimizers, one model on a core or a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from raylab.data import ClassificationData
from raylab.models.inputs import as_samples, preparing
from raylab.models.kernels import as_tensor
from raylab.models.randomness import one_at_a_time, private_randomness
from raylab.train.augmentation import augmenting
from raylab.train.relu import State, diverged, one_thread
from raylab.types import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

AUTOGRAD_VERSION = "1"  # raised whenever the same recipe and generator would give other weights


def train_by_autograd(
    model: nn.Module, data: ClassificationData, recipe: Recipe, rng: np.random.Generator, *, flat: bool = False
) -> State:
    """Train a model in place, where its parameters lie, and return all that it then holds: buffers too, as numpy.

    flat: it takes samples (samples, inputs), else in their own shape. `rng` shuffles them once an epoch, as for a ReLU
    network; the last batch of an epoch may be smaller. Streams of their own, spawned from it, augment images and seed
    torch's global generators (dropout), which are put back. The same generator gives the same weights on a CPU; on a
    GPU but for operations that torch has no deterministic kernel for. Raises DivergedError.
    """
    place = next(model.parameters()).device
    augmentation, others = rng.spawn(2)
    x, y = as_tensor(data.train_x).to(place), as_tensor(data.train_y).to(place)
    shaped, prepare = as_samples(data), preparing(data, place, flat=flat)
    augment = augmenting(recipe.augmentation, augmentation, x.min().item())
    with _alone(place, others):
        descend = _Descent(model.train(), recipe, math.ceil(len(y) / recipe.batch_size))
        for epoch in range(1, recipe.epochs + 1):
            losses = []
            for rows in _shuffled(len(y), rng, place).split(recipe.batch_size):
                batch = prepare(augment(shaped(x.index_select(0, rows))))
                losses.append(descend(batch, y.index_select(0, rows)))
            if not _finite(losses):
                raise diverged(epoch, recipe)
    return _held(model)


class _Descent:
    """A model with its optimizer, and how far the learning rate has come on its schedule."""

    def __init__(self, model: nn.Module, recipe: Recipe, batches: int) -> None:
        import torch

        self.model = model
        self.smoothing = recipe.label_smoothing
        self.optimizer = _optimizer(model, recipe)
        share = share_of_learning_rate(recipe, batches)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """One step down the mean cross-entropy of a batch, which is returned."""
        import torch

        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.model(x), y, label_smoothing=self.smoothing)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    import torch

    common: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), **common)
    return torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **common)


def share_of_learning_rate(recipe: Recipe, batches: int) -> Any:
    """Function of the step, from 0: what is taken of the largest learning rate. batches: steps an epoch.

    Warm-up of w steps: (step + 1) / w. A cosine is at 1 on the first step after it, and would be at 0 after the last.
    """
    rising, steps = round(recipe.warmup * batches), recipe.epochs * batches

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if recipe.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2

    return share


def _shuffled(count: int, rng: np.random.Generator, place: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(rng.permutation(count)).to(place)


def _finite(losses: list[Tensor]) -> bool:
    """The only wait for the device."""
    import torch

    return bool(torch.stack(losses).isfinite().all())


@contextmanager
def _alone(place: torch.device, rng: np.random.Generator) -> Iterator[None]:
    """One thread, torch's generators lent, the same kernels every time."""
    import torch

    gpu = (place.index or 0) if place.type == "cuda" else None
    with ExitStack() as stack:
        stack.enter_context(one_at_a_time)
        stack.enter_context(private_randomness(int(rng.integers(2**63)), gpu))
        stack.enter_context(one_thread())
        if gpu is not None:
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            stack.enter_context(flags)
        yield


def _held(model: nn.Module) -> State:
    """Parameters, and the buffers that a file of weights has: batch norm's statistics belong to a trained model."""
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in model.state_dict().items()}
