"""Weights that a model computes from others: measured once, as they are used."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import raylab
from raylab.layers import as_matrices, find_layers, weights
from raylab.types import SpectralOptions

CPU = SpectralOptions(device="cpu", min_evals=1)


def old(name):
    def wrap(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return getattr(nn.utils, name)(module)

    return wrap


COMPUTED = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of another dimension": lambda module: parametrizations.weight_norm(module, dim=1),
    "spectral_norm": parametrizations.spectral_norm,
    "old weight_norm": old("weight_norm"),
    "old spectral_norm": old("spectral_norm"),
    "pruned": lambda module: prune.l1_unstructured(module, "weight", 0.3),
}
MODULES = [lambda: nn.Linear(12, 9), lambda: nn.Conv1d(6, 9, 3), lambda: nn.ConvTranspose2d(6, 9, 3)]


def used(module):
    """The weight that a forward pass works with, out of training."""
    module.eval()
    with torch.no_grad():
        module(torch.randn(1, *([12] if isinstance(module, nn.Linear) else [6, *[9] * (module.weight.ndim - 2)])))
    return module.weight.detach().clone()


@pytest.mark.parametrize("make", MODULES)
@pytest.mark.parametrize("how", COMPUTED)
def test_a_computed_weight_is_measured_once_as_it_is_used(how, make):
    torch.manual_seed(0)
    model = nn.Sequential(COMPUTED[how](make()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found, skipped = find_layers(model)
    tensor = weights(model)["0"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [(layer.name, layer.kind) for layer in found] == [("0", find_layers(nn.Sequential(make()))[0][0].kind)]
    assert skipped and all("measured as it is used" in item.reason for item in skipped)
    torch.testing.assert_close(tensor, used(model[0]), rtol=0, atol=0)


@pytest.mark.parametrize("make", MODULES)
@pytest.mark.parametrize("how", COMPUTED)
def test_its_state_dict_gives_the_same_numbers(how, make):
    torch.manual_seed(0)
    model = nn.Sequential(COMPUTED[how](make()))
    ours = raylab.analyze(model, ("norms",), CPU).to_pylist()
    theirs = raylab.analyze(model.state_dict(), ("norms",), CPU).to_pylist()
    ok, same = ([row for row in rows if row["status"] == "ok"] for rows in (ours, theirs))
    assert [row["layer"] for row in ok] == [row["layer"] for row in same] == ["0"]
    assert same[0]["frobenius_norm"] == pytest.approx(ok[0]["frobenius_norm"], rel=1e-5)
    assert same[0]["spectral_norm"] == pytest.approx(ok[0]["spectral_norm"], rel=1e-5)


def test_a_stale_attribute_is_not_trusted():
    model = old("weight_norm")(nn.Linear(12, 9))
    with torch.no_grad():
        model.weight_g.mul_(3)
    torch.testing.assert_close(weights(model)["weight"], used(model))


def test_any_other_parametrization():
    class Symmetric(nn.Module):
        def forward(self, weight):
            return weight + weight.mT

    model = nn.Sequential(nn.Linear(9, 9))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    found, skipped = find_layers(model)
    assert [layer.name for layer in found] == ["0"]
    matrix = as_matrices(weights(model)["0"], found[0])[0]
    np.testing.assert_array_equal(matrix, matrix.T)
    assert [item.layer.name for item in skipped] == ["0.parametrizations.weight.original"]
    _, unknown = find_layers(model.state_dict())
    assert "give the torch module" in unknown[0].reason
