"""Initial weights of any classifier, drawn by numpy from the laws of its library; what cannot be drawn."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from raylab.errors import UserError
from raylab.models.drawn import drawn
from raylab.models.vision import CifarResNet, cifar_vgg


class Tied(nn.Module):
    """Two names of one weight, a fixed array, a buffer."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.steps = nn.Parameter(torch.arange(6.0) * scale)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.second(self.norm(self.first(x * self.steps)))


def fresh(k: int) -> np.random.Generator:
    return np.random.default_rng(k)


def test_a_draw_follows_its_generator_and_keeps_ties_constants_and_buffers():
    network = pickle.loads(pickle.dumps(drawn("tied", Tied)))
    first, again, other = (network.initial_state(fresh(k)) for k in (0, 0, 1))
    assert first.keys() == Tied().state_dict().keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["first.weight"], other["first.weight"])
    assert first["first.weight"] is first["second.weight"]
    np.testing.assert_array_equal(first["steps"], np.arange(6))
    np.testing.assert_array_equal(first["norm.running_var"], np.ones(6))


def test_training_starts_from_a_copy_and_changes_tied_weights_together():
    network = drawn("tied", Tied)
    state = network.initial_state(fresh(0))
    model = network.trainable(state)
    assert model.second.weight is model.first.weight and model.training
    with torch.no_grad():
        model.first.weight.zero_()
        model.norm.running_mean.fill_(3)
    assert np.abs(state["first.weight"]).min() > 0 and not state["norm.running_mean"].any()
    assert np.array_equal(network.module(state).first.weight.numpy(), state["first.weight"])


def test_the_identity_is_that_of_architecture_and_laws_not_of_one_draw():
    def identity(build) -> str:
        return drawn("model", build).identity

    assert identity(Tied) == identity(Tied) != identity(lambda: Tied(scale=2.0))
    assert identity(lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU())) != identity(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    )


class Seeded(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 6)
        nn.init.orthogonal_(self.weight, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("build", [Seeded, lambda: nn.utils.skip_init(nn.Linear, 4, 4)])
def test_a_parameter_without_a_law_is_refused_in_one_line(build):
    with pytest.raises(UserError, match="its parameter weight is the same whatever the seed, or never init") as error:
        drawn("seeded", build)
    assert "\n" not in str(error.value)


def test_a_vgg_has_torchvisions_plan_in_proportion_and_a_resnet_any_width():
    state = cifar_vgg(depth=11, width=16).state_dict()
    shapes = [tuple(tensor.shape[:2]) for name, tensor in state.items() if tensor.dim() == 4]
    assert shapes == [(16, 3), (32, 16), (64, 32), (64, 64), (128, 64), (128, 128), (128, 128), (128, 128)]
    assert cifar_vgg(depth=13, width=8)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert CifarResNet(8, width=4).linear.weight.shape == (10, 16)
    with pytest.raises(UserError, match="give depth 11, 13, 16 or 19"):
        cifar_vgg(depth=12)
