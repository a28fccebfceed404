"""Training of ReLU networks by stochastic gradient descent: one model a CPU core, or many at once on a GPU.

The same steps serve both: tensors are (samples, units) for one model and (models, samples, units) for a stack. Forward
and backward are written out because a small network spends much of an autograd step on bookkeeping and because
the gradient can then be added to the weights without being stored. Gradients are scaled by -lr at the top of the
backward pass, where they are smallest, so that what reaches a weight is the step itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylab.data import ClassificationData
from raylab.models.kernels import affine, as_tensor
from raylab.types import Array, Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

State = dict[str, Array]
TRAIN_VERSION = "1"  # raised whenever the same recipe and generator would give other weights


class DivergedError(ArithmeticError):
    """The training loss left the finite numbers. The message names the epoch, counted from 1."""


def train(initial: Mapping[str, Array], data: ClassificationData, recipe: Recipe, rng: np.random.Generator) -> State:
    """Train one ReLU network on one CPU core and return its weights under the names of `initial`.

    `initial` holds "<layer>.weight" (out, in) and "<layer>.bias" (out,) in the order of the forward pass. `rng`
    shuffles the samples once an epoch; the last batch of an epoch may be smaller. The same generator gives the same
    weights. Raises DivergedError.
    """
    import torch

    x, y = as_tensor(data.train_x), as_tensor(data.train_y)
    with torch.no_grad(), one_thread():
        net = network_of([initial], recipe, torch.device("cpu"), stacked=False)
        for epoch in range(1, recipe.epochs + 1):
            order = torch.from_numpy(rng.permutation(len(y)))
            losses = [step(net, rows_of(x, rows), rows_of(y, rows)) for rows in order.split(recipe.batch_size)]
            if not torch.stack(losses).isfinite().all():
                raise diverged(epoch, recipe)
    return _states(net, list(initial))[0]


def relu_network(state: Mapping[str, Array], x: Array) -> Array:
    """Logits (samples, outputs) of the network that `train` takes a state for: what it assumes, in plain words."""
    tensors = list(state.values())
    for weight, bias in zip(tensors[0::2], tensors[1::2], strict=True):
        last = weight is tensors[-2]
        x = x @ weight.T + bias
        x = x if last else np.maximum(x, 0)
    return x


def train_stacked(
    initials: Sequence[Mapping[str, Array]],
    data: ClassificationData,
    recipe: Recipe,
    rngs: Sequence[np.random.Generator],
    device: str = "cuda",
) -> list[State | DivergedError]:
    """Train many networks of one shape at once; equal to `train` of each with its own generator, up to rounding.

    For a GPU, which one small network leaves idle. A network that diverged is returned as its exception, so that the
    others survive. Device memory: the training set, 4 bytes a parameter and network, some (batch, inputs) a network.
    """
    import torch

    place = torch.device(device)
    x, y = as_tensor(data.train_x).to(place), as_tensor(data.train_y).to(place)
    losses = []
    with torch.no_grad():
        net = network_of(initials, recipe, place, stacked=True)
        for _ in range(recipe.epochs):
            order = _to_device(np.stack([rng.permutation(len(y)) for rng in rngs]), place)
            steps = [step(net, rows_of(x, rows), rows_of(y, rows)) for rows in order.split(recipe.batch_size, dim=1)]
            losses.append(torch.stack(steps).sum(0))
        finite = torch.stack(losses).isfinite().cpu().numpy()  # (epochs, models); the only wait for the device
    states = _states(net, list(initials[0]))
    return [
        states[k] if finite[:, k].all() else diverged(int(finite[:, k].argmin()) + 1, recipe)
        for k in range(len(initials))
    ]


@dataclass
class Network:
    """Weights and biases of one network, or of a stack of them, and how a step changes them."""

    recipe: Recipe
    weights: list[Tensor]  # (out, in) or (models, out, in)
    biases: list[Tensor]  # (out,) or (models, 1, out)
    stacked: bool

    def __post_init__(self) -> None:
        moving = [*self.weights, *self.biases] if self.recipe.momentum else []
        self.velocities = {id(p): p.new_zeros(p.shape) for p in moving}

    def affine(self, k: int, x: Tensor, *, relu: bool) -> Tensor:
        """Layer k of x, (..., samples, in) -> (..., samples, out)."""
        if not self.stacked:
            return affine(x, self.weights[k], self.biases[k], relu=relu)
        y = self.biases[k].baddbmm(x, self.weights[k].mT)
        return y.relu_() if relu else y

    def backward(self, k: int, delta: Tensor) -> Tensor:
        """Gradient at the input of layer k, given the one at its output."""
        return delta.bmm(self.weights[k]) if self.stacked else affine(delta, self.weights[k].mT)

    def descend(self, k: int, delta: Tensor, x: Tensor) -> None:
        """Move layer k by -lr times its gradients; `delta` (..., samples, out) carries the -lr already."""
        weight, bias = self.weights[k], self.biases[k]
        if self.stacked and not self.recipe.momentum and not self.recipe.weight_decay:
            weight.baddbmm_(delta.mT, x)  # the gradient is never stored
        else:
            self._move(weight, delta.mT.bmm(x) if self.stacked else affine(delta.mT, x.mT))
        self._move(bias, delta.sum(-2, keepdim=self.stacked))

    def _move(self, parameter: Tensor, step: Tensor) -> None:
        """torch.optim.SGD's rule (coupled weight decay, momentum without dampening), the step being -lr * gradient."""
        if self.recipe.weight_decay:
            step.add_(parameter, alpha=-self.recipe.learning_rate * self.recipe.weight_decay)
        if self.recipe.momentum:
            step = self.velocities[id(parameter)].mul_(self.recipe.momentum).add_(step)
        parameter.add_(step)


def step(net: Network, x: Tensor, y: Tensor) -> Tensor:
    """One step down the mean cross-entropy of a batch; returns the sum over the batch, a value a model."""
    import torch

    last = len(net.weights) - 1
    inputs = [x]  # of each layer
    for k in range(last):
        inputs.append(net.affine(k, inputs[k], relu=True))
    log_p = net.affine(last, inputs[last], relu=False).log_softmax(-1)
    label = y.unsqueeze(-1)
    loss = -log_p.gather(-1, label).sum((-1, -2))
    delta = log_p.exp_()  # becomes softmax - onehot, the gradient at the logits
    delta.scatter_add_(-1, label, delta.new_full((1,), -1.0).expand(label.shape))
    delta.mul_(-net.recipe.learning_rate / y.shape[-1])
    for k in range(last, -1, -1):
        below = net.backward(k, delta) if k else delta  # before the weights move
        net.descend(k, delta, inputs[k])
        delta = torch.ops.aten.threshold_backward(below, inputs[k], 0.0) if k else below
    return loss


def network_of(
    initials: Sequence[Mapping[str, Array]], recipe: Recipe, place: torch.device, *, stacked: bool
) -> Network:
    """The networks that start from these weights, which are copied."""
    import torch

    names = list(initials[0])
    if names[0::2] != [f"{name.removesuffix('.bias')}.weight" for name in names[1::2]]:
        raise ValueError(f"weight and bias of each layer in turn expected, not {names}")
    columns = [torch.tensor(np.stack([state[name] for state in initials]), device=place) for name in names]
    weights, biases = columns[0::2], [bias.unsqueeze(1) for bias in columns[1::2]]
    if not stacked:
        weights, biases = [w[0] for w in weights], [b[0, 0] for b in biases]
    return Network(recipe, weights, biases, stacked)


def _states(net: Network, names: Sequence[str]) -> list[State]:
    """Copies of the weights in numpy, one dictionary a network."""
    parameters = [p for pair in zip(net.weights, net.biases, strict=True) for p in pair]
    if not net.stacked:
        return [{name: p.numpy() for name, p in zip(names, parameters, strict=True)}]
    stacks = [p.cpu().numpy() for p in parameters]
    stacks[1::2] = [bias[:, 0] for bias in stacks[1::2]]
    return [dict(zip(names, [s[k].copy() for s in stacks], strict=True)) for k in range(len(stacks[0]))]


def _to_device(array: Array, place: torch.device) -> Tensor:
    """Without waiting for the device, so that the host shuffles an epoch while the device works on the one before."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(place, non_blocking=True) if place.type == "cuda" else tensor


def rows_of(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows], faster: (n, inputs) and (..., batch) to (..., batch, inputs)."""
    return x.index_select(0, rows.reshape(-1)).view(*rows.shape, *x.shape[1:])


def diverged(epoch: int, recipe: Recipe) -> DivergedError:
    """The error of an epoch, counted from 1."""
    return DivergedError(
        f"the training loss is not finite in epoch {epoch} of {recipe.epochs}: lower the learning rate"
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: cores are for other models, and threads would change the order of summation."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
