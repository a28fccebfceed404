import numpy as np
import pytest
import torch

from raylab.models import kernels


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
