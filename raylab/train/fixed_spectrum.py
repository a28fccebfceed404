"""Training of ReLU networks whose layers keep their singular values, and so their alpha, while all else is learned.

Each layer is W = U S V^T, thin: U (out, r), V (in, r), r = min(in, out). S is frozen at the singular values of the
initial W; U, V and biases go down the gradient, U and V back to orthonormal columns every few steps (see
`raylab.train.retraction`). A pass goes through the factors one after another: for a batch smaller than the layer that
takes fewer operations than multiplying them out, forward and backward (256 samples, 512 x 512: 5.4 ms against 9.3).

Steps are in float32. At the end of an epoch U and V are made orthonormal in float64 and multiplied out with S as it
was: that is the network of the epoch, to be evaluated and measured; its singular values are S to the rounding of
float64. Training goes on from these U and V, rounded to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from raylab.data import ClassificationData
from raylab.errors import UserError
from raylab.models.kernels import affine, as_tensor
from raylab.train.relu import Network, State, diverged, network_of, one_thread, rows_of, step
from raylab.train.retraction import Float64, OnceAnEpoch, Retraction, polished
from raylab.types import Array, Recipe

if TYPE_CHECKING:
    from torch import Tensor

FIXED_VERSION = "1"  # raised whenever the same recipe, retraction and generators would give other weights
VELOCITY = "velocity of "


@dataclass(frozen=True)
class Epoch:
    """A network at the end of an epoch; 0: before the first."""

    number: int
    state: State  # under the names of the initial weights: weights in float64, with their spectrum restored; biases
    unrestored: State  # name of a weight -> as the last step and retraction left it, in float32: U S V^T multiplied out
    train_loss: float  # mean cross-entropy over the samples of the epoch, each before its step [nats]; NaN for 0
    off: Mapping[str, float]  # name of a weight -> max |Q^T Q - I| of its U and V before that; NaN where there are none
    tensors: State  # what training goes on from


def train_epochs(
    initial: Mapping[str, Array],
    data: ClassificationData,
    recipe: Recipe,
    retraction: Retraction | OnceAnEpoch,
    shuffles: Callable[[int], np.random.Generator],
    *,
    every: int = 4,
    resume: tuple[int, Mapping[str, Array]] | None = None,
) -> Iterator[Epoch]:
    """Train one network on one CPU core, epoch by epoch, up to recipe.epochs.

    initial: "<layer>.weight" (out, in) and "<layer>.bias" (out,) in the order of the forward pass. shuffles: epoch,
    from 1, to the generator of its order of samples. every: steps from one retraction to the next; the last step of an
    epoch is followed by one too. resume: number and `tensors` of an epoch that was trained before; what follows is the
    same, bit for bit, as in one go. Yields epoch 0, or the one after that of `resume`, and so on. Raises DivergedError.
    """
    import torch

    with one_thread():
        once = isinstance(retraction, OnceAnEpoch)
        training = _Whole(initial, recipe, retraction) if once else _Factors(initial, recipe, retraction, every)
        if resume:
            training.put_back(resume[1])
        initially = None if resume else training.epoch(0, float("nan"))
    if initially:
        yield initially
    x, y = as_tensor(data.train_x), as_tensor(data.train_y)
    for number in range(resume[0] + 1 if resume else 1, recipe.epochs + 1):
        with torch.no_grad(), one_thread():
            order = torch.from_numpy(shuffles(number).permutation(len(y)))
            loss = training.descend_epoch(x, y, order, number)
            epoch = training.epoch(number, loss)
        yield epoch


@dataclass
class _Factored(Network):
    """A network of factors: `weights` holds U (out, r) of each layer."""

    rights: list[Tensor]  # V (in, r)
    spectra: list[Tensor]  # S (r,)
    _inner: dict[int, Tensor] = field(default_factory=dict)  # layer -> x V S, (samples, r), of the step at hand
    _below: dict[int, Tensor] = field(default_factory=dict)  # layer -> delta U S, (samples, r)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recipe.momentum:
            self.velocities |= {id(p): p.new_zeros(p.shape) for p in self.rights}

    def affine(self, k: int, x: Tensor, *, relu: bool) -> Tensor:
        self._inner[k] = affine(x, self.rights[k].mT).mul_(self.spectra[k])
        return affine(self._inner[k], self.weights[k], self.biases[k], relu=relu)

    def backward(self, k: int, delta: Tensor) -> Tensor:
        self._below[k] = self._through_left(k, delta)
        return affine(self._below[k], self.rights[k])

    def descend(self, k: int, delta: Tensor, x: Tensor) -> None:
        below = self._below[k] if k else self._through_left(k, delta)
        self._move(self.weights[k], affine(delta.mT, self._inner[k].mT))
        self._move(self.rights[k], affine(x.mT, below.mT))
        self._move(self.biases[k], delta.sum(-2))

    def _through_left(self, k: int, delta: Tensor) -> Tensor:
        return affine(delta, self.weights[k].mT).mul_(self.spectra[k])


class _Training:
    """A network on its way, whichever way. `parameters`: all that moves, by name."""

    every = 1  # steps

    def __init__(self, initial: Mapping[str, Array], net: Network, parameters: Mapping[str, Tensor]) -> None:
        self.names, self.net, self.parameters = list(initial), net, dict(parameters)

    def descend_epoch(self, x: Tensor, y: Tensor, order: Tensor, number: int) -> float:
        """The steps of one epoch. Returns the mean loss; raises DivergedError where it is no number."""
        import torch

        losses = []
        try:
            batches = order.split(self.net.recipe.batch_size)
            for count, rows in enumerate(batches, start=1):
                losses.append(step(self.net, rows_of(x, rows), rows_of(y, rows)))
                if count % self.every == 0 or count == len(batches):
                    self.retract()
        except RuntimeError as error:
            if self._finite():
                raise
            raise diverged(number, self.net.recipe) from error  # a decomposition that does not end
        if not (torch.stack(losses).isfinite().all() and self._finite()):
            raise diverged(number, self.net.recipe)
        return float(torch.stack(losses).double().sum()) / len(order)

    def retract(self) -> None:
        """What is done every so many steps, and after the last of an epoch."""

    def restored(self, k: int) -> tuple[Float64, Array, float]:
        """Weight k with its spectrum restored, as it was before, how far U and V were off; the net is the first."""
        raise NotImplementedError

    def epoch(self, number: int, loss: float) -> Epoch:
        """The network as it is now, its spectrum restored."""
        weights = self.names[::2]
        state, unrestored, off = {}, {}, {}
        for k, name in enumerate(weights):
            state[name], unrestored[name], off[name] = self.restored(k)
            state[self.names[2 * k + 1]] = self.net.biases[k].numpy().copy()
        return Epoch(number, state, unrestored, loss, off, self._tensors())

    def put_back(self, tensors: Mapping[str, Array]) -> None:
        """Go on from `_tensors`. Raises KeyError where they are those of another training."""
        for name, tensor in self._moving().items():
            tensor.copy_(as_tensor(tensors[name]))

    def _tensors(self) -> State:
        return {name: tensor.numpy().copy() for name, tensor in self._moving().items()}

    def _moving(self) -> dict[str, Tensor]:
        velocities = {f"{VELOCITY}{name}": self.net.velocities.get(id(p)) for name, p in self.parameters.items()}
        return self.parameters | {name: each for name, each in velocities.items() if each is not None}

    def _finite(self) -> bool:
        return all(bool(p.isfinite().all()) for p in self.parameters.values())


class _Factors(_Training):
    """S frozen; U and V kept orthonormal by a retraction."""

    def __init__(self, initial: Mapping[str, Array], recipe: Recipe, retraction: Retraction, every: int) -> None:
        import torch

        names = list(initial)
        lefts, self.spectra, rights = zip(*(_thin_svd(initial[name]) for name in names[::2]), strict=True)
        self.retraction, self.every = retraction, every
        self.lefts, self.rights = [[_float32(q) for q in qs] for qs in (lefts, rights)]
        biases = [torch.tensor(initial[name]) for name in names[1::2]]
        spectra = [_float32(s) for s in self.spectra]
        net = _Factored(recipe, self.lefts, biases, False, self.rights, spectra)
        named = {
            key: p
            for name, bias_name, u, v, b in zip(names[::2], names[1::2], self.lefts, self.rights, biases, strict=True)
            for key, p in ((f"U of {name}", u), (f"V of {name}", v), (bias_name, b))
        }
        super().__init__(initial, net, named)

    def retract(self) -> None:
        for q in (*self.lefts, *self.rights):
            moved = self.retraction(q)
            if moved.shape != q.shape:
                raise UserError(f"A retraction gave {tuple(moved.shape)} for {tuple(q.shape)}: keep the shape.")
            q.copy_(moved)

    def restored(self, k: int) -> tuple[Float64, Array, float]:
        left, right, spectrum = self.lefts[k], self.rights[k], _float32(self.spectra[k])
        before = affine(left * spectrum, right).numpy()
        (u, off_u), (v, off_v) = (polished(q.numpy().astype(np.float64)) for q in (left, right))
        left.copy_(_float32(u))
        right.copy_(_float32(v))
        return (u * self.spectra[k]) @ v.T, before, max(off_u, off_v)


class _Whole(_Training):
    """W as it is, and what becomes of it once an epoch."""

    def __init__(self, initial: Mapping[str, Array], recipe: Recipe, once: OnceAnEpoch) -> None:
        import torch

        net = network_of([initial], recipe, torch.device("cpu"), stacked=False)
        both = [p for pair in zip(net.weights, net.biases, strict=True) for p in pair]
        super().__init__(initial, net, dict(zip(initial, both, strict=True)))
        self.spectra = [_thin_svd(initial[name])[1] for name in self.names[::2]]
        self.once = once

    def restored(self, k: int) -> tuple[Float64, Array, float]:
        before = self.net.weights[k].numpy().copy()
        after = self.once.restore(before.astype(np.float64), self.spectra[k])
        self.net.weights[k].copy_(_float32(after))
        return after, before, float("nan")


def _thin_svd(weight: Array) -> tuple[Float64, Float64, Float64]:
    """U (out, r), S (r,) descending and V (in, r) of a weight (out, in), in float64."""
    u, s, vt = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    return u, s, vt.T


def _float32(array: Float64) -> Tensor:
    return as_tensor(np.ascontiguousarray(array, dtype=np.float32))
