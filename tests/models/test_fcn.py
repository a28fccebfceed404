import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from raylab.models.fcn import FCN
from raylab.types import Layer


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def test_the_papers_network_has_six_layers_of_the_right_shapes():
    model = FCN(784, 10, depth=5, width=512)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert model.layer_names == ("fc1", "fc2", "fc3", "fc4", "fc5", "fc6")
    assert shapes["fc1.weight"] == (512, 784)
    assert all(shapes[f"fc{k}.weight"] == (512, 512) for k in (2, 3, 4, 5))
    assert shapes["fc6.weight"] == (10, 512) and shapes["fc6.bias"] == (10,)
    assert sum(math.prod(shape) for shape in shapes.values()) == 784 * 512 + 512 + 4 * (512 * 512 + 512) + 512 * 10 + 10


def test_depth_zero_is_a_linear_model():
    model = FCN(4, 3, depth=0, width=8)
    assert [tuple(p.shape) for p in model.parameters()] == [(3, 4), (3,)]


@pytest.mark.parametrize("sizes", [(0, 10, 1, 8), (4, 0, 1, 8), (4, 2, 1, 0), (4, 2, -1, 8)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="give at least 1 of each"):
        FCN(*sizes)


def test_building_a_model_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    FCN(8, 3, 2, 8).initial_state(rng(1))
    assert torch.equal(before, torch.get_rng_state())


def test_initial_values_follow_the_uniform_law_of_each_layer():
    model = FCN(784, 10, depth=5, width=512)
    state = model.initial_state(rng(2))
    for name, array in state.items():
        fan_in = 784 if name.startswith("fc1.") else 512
        bound = 1 / math.sqrt(fan_in)
        uniform = stats.uniform(-bound, 2 * bound)
        assert stats.kstest(array.ravel().astype(float), uniform.cdf).pvalue > 1e-3, name
        assert np.abs(array).max() <= np.float32(bound)
        if array.size > 100_000:  # the extremes of so many draws are the bounds
            assert np.abs(array).max() == pytest.approx(bound, rel=1e-4)
        assert array.dtype == np.float32


def test_torchs_own_default_has_the_same_law_and_another_bound_has_not():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torch.nn.Linear(512, 512)
    ours = FCN(512, 512, depth=0, width=1).initial_state(rng(3))
    for parameter in ("weight", "bias"):
        a, b = ours[f"fc1.{parameter}"].ravel(), getattr(theirs, parameter).detach().numpy().ravel()
        assert stats.ks_2samp(a, b).pvalue > 1e-3, parameter
        assert stats.ks_2samp(a, b * 1.5).pvalue < 1e-3, parameter  # the test can tell


def test_initial_law_draws_what_initial_state_drew():
    model = FCN(16, 4, depth=1, width=8)
    state, generator = model.initial_state(rng(4)), rng(4)
    for index, name in enumerate(model.layer_names):
        layer = Layer(name, index, "linear", tuple(model.get_submodule(name).weight.shape))
        for parameter in ("weight", "bias"):
            draw = pickle.loads(pickle.dumps(model.initial_law(layer, parameter)))
            np.testing.assert_array_equal(draw(generator), state[f"{name}.{parameter}"])


def test_forward_is_that_of_a_plain_torch_network():
    model = FCN(20, 5, depth=3, width=16)
    model.load(model.initial_state(rng(5)))
    plain = torch.nn.Sequential(
        *(m for name in model.layer_names for m in (model.get_submodule(name), torch.nn.ReLU()))
    )[:-1]
    x = torch.from_numpy(rng(6).standard_normal((33, 20), dtype=np.float32))
    expected = plain.double()(x.double()).detach().float()
    model.float()
    torch.testing.assert_close(model(x).detach(), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)


def test_gradients_flow_where_they_are_asked_for():
    model = FCN(6, 3, depth=1, width=4)
    model.load(model.initial_state(rng(7)))
    model(torch.ones(2, 6)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
