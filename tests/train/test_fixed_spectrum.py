"""Training with alpha fixed against torch's autograd, scipy, and our own free training."""

import numpy as np
import pytest
import scipy.linalg
import torch

from raylab import spectral
from raylab.data import digits
from raylab.models.fcn import FCN
from raylab.train import DivergedError, retraction_of, train, train_epochs
from raylab.types import Layer, Recipe, RetractionOptions

DATA = digits.load()
START = FCN(64, 10, depth=2, width=24).initial_state(np.random.default_rng(4))
WEIGHTS = [name for name in START if name.endswith("weight")]
RECIPE = Recipe(learning_rate=0.05, batch_size=128, epochs=3, momentum=0.9)
FIXED = ["newton_schulz", "polar", "qr", "svd_projection"]


def shuffles(epoch: int) -> np.random.Generator:
    return np.random.default_rng([5, epoch])


def trained(name, recipe=RECIPE, resume=None, every=4):
    how = retraction_of(name, RetractionOptions())
    return list(train_epochs(START, DATA, recipe, how, shuffles, every=every, resume=resume))


class EachEpochs:
    """A generator for `train`, which draws one permutation an epoch."""

    def __init__(self):
        self.epoch = 0

    def permutation(self, n):
        self.epoch += 1
        return shuffles(self.epoch).permutation(n)


def autograd(every: int, recipe: Recipe) -> dict[str, np.ndarray]:
    """The oracle: torch.optim.SGD on U, V and biases in float64, scipy's polar factor every so many steps."""
    factors, spectra, biases = [], [], []
    for name in WEIGHTS:
        u, s, vt = np.linalg.svd(START[name].astype(np.float64), full_matrices=False)
        factors.append([torch.tensor(q.copy(), requires_grad=True) for q in (u, vt.T)])
        spectra.append(torch.from_numpy(s))
        biases.append(torch.tensor(START[name.replace("weight", "bias")], dtype=torch.float64, requires_grad=True))
    moving = [p for pair in factors for p in pair]
    optimizer = torch.optim.SGD([*moving, *biases], lr=recipe.learning_rate, momentum=recipe.momentum)
    x, y = torch.from_numpy(DATA.train_x).double(), torch.from_numpy(DATA.train_y)
    for epoch in range(1, recipe.epochs + 1):
        batches = torch.from_numpy(shuffles(epoch).permutation(len(y))).split(recipe.batch_size)
        for count, rows in enumerate(batches, start=1):
            h = x[rows]
            for k, ((u, v), s, b) in enumerate(zip(factors, spectra, biases, strict=True)):
                h = h @ ((u * s) @ v.T).T + b
                h = h.relu() if k < len(factors) - 1 else h
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(h, y[rows]).backward()
            optimizer.step()
            with torch.no_grad():
                for q in moving if count % every == 0 or count == len(batches) else ():
                    q.copy_(torch.from_numpy(scipy.linalg.polar(q.numpy())[0]))
    weights = [((u * s) @ v.T).detach().numpy() for (u, v), s in zip(factors, spectra, strict=True)]
    return dict(zip(WEIGHTS, weights, strict=True)) | {
        name.replace("weight", "bias"): b.detach().numpy() for name, b in zip(WEIGHTS, biases, strict=True)
    }


@pytest.mark.parametrize(("name", "every"), [("newton_schulz", 4), ("newton_schulz", 1), ("polar", 3)])
def test_the_steps_are_those_of_torch(name, every):
    recipe = Recipe(learning_rate=0.02, batch_size=128, epochs=3, momentum=0.9)
    ours, theirs = trained(name, recipe, every=every)[-1].state, autograd(every, recipe)
    for key, array in ours.items():
        np.testing.assert_allclose(array, theirs[key], rtol=0, atol=2e-5, err_msg=key)
    assert max(np.abs(ours[name] - START[name]).max() for name in WEIGHTS) > 0.02  # it went somewhere


def test_free_training_is_that_of_train_bit_for_bit():
    last = trained("free")[-1]
    theirs = train(START, DATA, RECIPE, EachEpochs())
    for name, array in theirs.items():
        assert np.array_equal(last.state[name], array)
    assert last.state["fc1.weight"].dtype == np.float64 and np.isnan(last.off["fc1.weight"])


@pytest.mark.parametrize("name", FIXED)
def test_singular_values_and_alpha_are_the_same_at_every_epoch(name):
    """To 1e-14 of the largest; and what float32 left was not."""
    epochs = trained(name)
    assert [epoch.number for epoch in epochs] == [0, 1, 2, 3]
    metrics = spectral.resolve(["power_law"])
    for index, key in enumerate(WEIGHTS):
        before = np.linalg.svd(START[key].astype(np.float64), compute_uv=False)
        layer = Layer(key.removesuffix(".weight"), index, "linear", START[key].shape)
        alpha = spectral.measure(START[key], layer, metrics)["alpha"]
        for epoch in epochs:
            now = np.linalg.svd(epoch.state[key], compute_uv=False)
            np.testing.assert_allclose(now, before, rtol=0, atol=1e-14 * before[0])
            assert spectral.measure(epoch.state[key], layer, metrics)["alpha"] == pytest.approx(alpha, rel=1e-10)
            left = np.linalg.svd(epoch.unrestored[key].astype(np.float64), compute_uv=False)
            assert epoch.unrestored[key].dtype == np.float32
            assert (np.abs(left - before).max() > 1e-9 * before[0]) == (epoch.number > 0 or name != "svd_projection")


@pytest.mark.parametrize("name", [*FIXED, "free"])
def test_the_network_of_an_epoch_is_the_one_that_training_goes_on_from(name):
    for epoch in trained(name):
        for key in WEIGHTS:
            if f"U of {key}" in epoch.tensors:
                u, v = (epoch.tensors[f"{side} of {key}"].astype(np.float64) for side in "UV")
                s = np.linalg.svd(START[key].astype(np.float64), compute_uv=False)
                now = (u * s) @ v.T
            else:
                now = epoch.tensors[key]
            np.testing.assert_allclose(epoch.state[key], now, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*FIXED, "free"])
def test_resumed_is_in_one_go_bit_for_bit(name):
    whole = trained(name)
    resumed = trained(name, resume=(1, whole[1].tensors))
    assert [epoch.number for epoch in resumed] == [2, 3]
    for one, other in zip(whole[2:], resumed, strict=True):
        assert one.train_loss == other.train_loss and one.off.keys() == other.off.keys()
        for part in ("state", "unrestored", "tensors"):
            ours, theirs = getattr(one, part), getattr(other, part)
            assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples():
    """Without steps that matter, it is the loss of the initial network."""
    epochs = trained("newton_schulz", Recipe(learning_rate=1e-12, batch_size=500, epochs=1))
    h = torch.from_numpy(DATA.train_x)
    for k, key in enumerate(WEIGHTS, start=1):
        h = h @ torch.from_numpy(START[key]).T + torch.from_numpy(START[key.replace("weight", "bias")])
        h = h.relu() if k < len(WEIGHTS) else h
    expected = torch.nn.functional.cross_entropy(h, torch.from_numpy(DATA.train_y)).item()
    assert np.isnan(epochs[0].train_loss) and epochs[1].train_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["newton_schulz", "polar", "svd_projection", "free"])
def test_divergence_is_said(name):
    with pytest.raises(DivergedError, match="not finite in epoch 1 of 1: lower the learning rate"):
        trained(name, Recipe(learning_rate=1e30, batch_size=128, epochs=1))


def test_digits_are_learned_with_alpha_fixed():
    last = trained("newton_schulz", Recipe(learning_rate=0.05, batch_size=64, epochs=10, momentum=0.9))[-1]
    model = FCN(64, 10, depth=2, width=24).load(last.state)
    with torch.no_grad():
        guess = model(torch.from_numpy(DATA.test_x)).argmax(1).numpy()
    assert (guess == DATA.test_y).mean() > 0.6  # of ten classes
