import numpy as np
import pytest
import torch
from torch import nn

from raylab.models import kernels
from raylab.models.kernels import take_the_fast_road


@pytest.fixture(params=["as installed", "without oneDNN"])
def road(request, monkeypatch):
    if request.param == "without oneDNN":
        monkeypatch.setattr(kernels, "_onednn", lambda: None)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 13, 5), (96, 784, 512), (256, 512, 10)])
def test_affine_equals_float64(road, sizes, transposed, relu, bias):
    samples, fan_in, fan_out = sizes
    draw = np.random.default_rng(sizes).standard_normal
    x, w, b = (torch.from_numpy(draw(s)) for s in ((samples, fan_in), (fan_out, fan_in), (fan_out,)))
    expected = x @ w.T + (b if bias else 0)
    xf, wf = (t.float().T.contiguous().T if transposed else t.float() for t in (x, w))
    y = kernels.affine(xf, wf, b.float() if bias else None, relu=relu)
    torch.testing.assert_close(y.double(), expected.relu() if relu else expected, rtol=1e-4, atol=1e-4)


def test_a_tensor_over_a_read_only_array_shares_its_memory_and_gives_no_warning():
    array = np.arange(4.0)
    array.flags.writeable = False
    assert kernels.as_tensor(array).data_ptr() == array.ctypes.data


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_linear_layers_of_any_model_compute_the_same_on_the_fast_road(shape, bias):
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    other = type("Other", (nn.Linear,), {"forward": lambda self, x: nn.Linear.forward(self, x) + 1})
    for layer in (nn.Linear(5, 9, bias=bias), Conv1D(9, 5), other(5, 9)):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = layer(x)
            take_the_fast_road(layer)
            torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)
            layer.weight.data = layer.weight.data * 2  # what is perturbed later is what runs
            torch.testing.assert_close(layer(x) - layer(x * 0), 2 * (expected - layer(x * 0)), rtol=1e-4, atol=1e-5)


def test_only_a_cpu_in_float32_takes_another_road():
    layer = nn.Linear(5, 9).bfloat16()
    x = torch.ones(3, 5, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = layer(x)
        take_the_fast_road(layer)
        assert torch.equal(layer(x), expected)
