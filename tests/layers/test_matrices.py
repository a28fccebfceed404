import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from raylab.errors import UserError
from raylab.layers import as_matrices, find_layers, half_spectrum, kernel_slices, matrices, matrices_shape
from raylab.types import Layer

CONVOLUTIONS = [f"{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)]
SIZE = st.integers(1, 4)


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(["linear", "hf_conv1d", "expert", "matrix", "bilinear", *CONVOLUTIONS]))
    if kind == "bilinear":
        return Layer("x", 0, kind, (draw(SIZE), draw(SIZE), draw(SIZE)))
    if kind not in CONVOLUTIONS:
        return Layer("x", 0, kind, (draw(SIZE), draw(SIZE)))
    groups = draw(st.integers(1, 3))
    kernel = tuple(draw(SIZE) for _ in range(int(kind[-2])))
    return Layer("x", 0, kind, (groups * draw(SIZE), draw(SIZE), *kernel), groups)


@given(layers(), st.sampled_from(matrices.CONV_TREATMENTS), st.sampled_from(matrices.GROUP_TREATMENTS))
def test_the_shape_is_known_before_the_matrices(layer, conv, groups):
    stack = as_matrices(np.ones(layer.shape, np.float32), layer, conv, groups)
    count, N, M = matrices_shape(layer, conv, groups)
    assert (len(stack), max(stack.shape[1:]), min(stack.shape[1:])) == (count, N, M)


@given(layers(), st.sampled_from(["pooled", "slices", "reshape"]), st.sampled_from(matrices.GROUP_TREATMENTS))
def test_every_weight_counts_once(layer, conv, groups):
    weights = np.random.default_rng(0).normal(size=layer.shape)
    kernel = np.prod(layer.shape[2:]) if layer.kind in CONVOLUTIONS else 1
    scale = {"pooled": 0.5, "slices": kernel / 2, "reshape": 1}[conv] if layer.kind in CONVOLUTIONS else 1
    total = np.sum(as_matrices(weights, layer, conv, groups) ** 2)
    assert total == pytest.approx(scale * np.sum(weights**2))


def test_slices_lie_in_the_order_of_the_kernel():
    weights = np.random.default_rng(0).normal(size=(4, 3, 2, 5))
    layer = Layer("c", 0, "conv2d", weights.shape)
    np.testing.assert_allclose(as_matrices(weights, layer)[7], weights[:, :, 1, 2] * np.sqrt(1 / 2))
    np.testing.assert_allclose(as_matrices(weights, layer, "slices")[7], weights[:, :, 1, 2] * np.sqrt(10 / 2))
    np.testing.assert_array_equal(as_matrices(weights, layer, "reshape")[0], weights.reshape(4, 30))


def test_blocks_are_the_groups():
    weights = np.random.default_rng(0).normal(size=(6, 2, 3))
    layer = Layer("c", 0, "conv1d", weights.shape, groups=3)
    blocks = as_matrices(weights, layer, "pooled", "blocks")
    assert blocks.shape == (9, 2, 2)
    np.testing.assert_allclose(blocks[4], weights[2:4, :, 1] * np.sqrt(1 / 2))
    np.testing.assert_array_equal(as_matrices(weights, layer, "reshape", "blocks")[2], weights[4:].reshape(2, 6))


def test_what_lies_as_it_is_needed_is_not_copied():
    weights = np.zeros((6, 4), np.float32)
    assert np.shares_memory(as_matrices(weights, Layer("x", 0, "linear", (6, 4))), weights)
    assert np.shares_memory(as_matrices(weights[::2].T, Layer("x", 0, "linear", (4, 3))), weights)
    kernel = np.zeros((6, 4, 3, 3), np.float32)
    assert np.shares_memory(as_matrices(kernel, Layer("x", 0, "conv2d", kernel.shape), "reshape"), kernel)
    tensor = torch.zeros(6, 4, requires_grad=True)
    assert np.shares_memory(as_matrices(tensor, Layer("x", 0, "linear", (6, 4))), tensor.detach().numpy())


def test_half_precision_is_read_exactly():
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    for dtype in (torch.bfloat16, torch.float16):
        tensor = torch.from_numpy(bits.copy()).view(dtype).reshape(256, 256)
        layer = Layer("x", 0, "linear", (256, 256))
        np.testing.assert_array_equal(as_matrices(tensor, layer)[0], tensor.double().numpy())
    halves = bits.view(np.float16).reshape(256, 64, 4)[:, :, :2]
    finite = np.where(np.isfinite(halves), halves, 0)
    layer = Layer("c", 0, "conv1d", finite.shape)
    expected = finite.astype(np.float64).transpose(2, 0, 1) * np.sqrt(1 / 2)
    np.testing.assert_array_equal(as_matrices(finite, layer), expected)


def test_a_tensor_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"layer x has shape \(2, 3\), not \(3, 2\)"):
        as_matrices(np.zeros((3, 2)), Layer("x", 0, "linear", (2, 3)))


@pytest.mark.parametrize(("conv", "groups", "says"), [("fff", "stored", "'fft'"), ("fft", "block", "stored or blocks")])
def test_a_treatment_that_does_not_exist(conv, groups, says):
    with pytest.raises(UserError, match=says):
        as_matrices(np.zeros((2, 3)), Layer("x", 0, "linear", (2, 3)), conv, groups)


def operator(module, size):
    """The matrix of a convolution on a torus, column by column, by torch."""
    ndim, inputs = module.weight.ndim - 2, module.in_channels
    basis = torch.eye(inputs * size**ndim, dtype=torch.float64).reshape(-1, inputs, *[size] * ndim)
    function = getattr(nn.functional, ("conv_transpose" if module.transposed else "conv") + f"{ndim}d")
    if not module.transposed:
        around = [side for k in module.kernel_size[::-1] for side in (0, k - 1)]
        basis = nn.functional.pad(basis, around, mode="circular")
    out = function(basis, module.weight, groups=module.groups)
    if module.transposed:
        for axis in range(2, 2 + ndim):
            inside, beyond = out.split([size, out.shape[axis] - size], axis)
            out = inside.clone()
            out.narrow(axis, 0, beyond.shape[axis]).add_(beyond)
    return out.reshape(len(basis), -1).T.detach().numpy()


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv1d(3, 4, 5, bias=False),
        nn.Conv2d(3, 2, (3, 2), bias=False),
        nn.Conv3d(2, 3, (2, 1, 3), bias=False),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.Conv2d(4, 8, 3, groups=4, bias=False),
        nn.ConvTranspose1d(3, 4, 3, bias=False),
        nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False),
        nn.ConvTranspose3d(2, 2, 2, bias=False),
    ],
    ids=str,
)
def test_fft_gives_the_singular_values_of_the_convolution(module, monkeypatch):
    size = {1: 32, 2: 6, 3: 4}[module.weight.ndim - 2]
    monkeypatch.setattr(matrices, "GRID", {1: size, 2: size, 3: size})
    module = module.double()
    truth = np.sort(np.linalg.svd(operator(module, size), compute_uv=False))
    layer = find_layers(module)[0][0]
    ours = np.linalg.svd(as_matrices(module.weight, layer, "fft", "blocks"), compute_uv=False)
    np.testing.assert_allclose(np.sort(ours.ravel()), truth, atol=1e-12 * truth[-1])


@pytest.mark.parametrize("kernel", [(1,), (3,), (40,), (3, 3), (5, 2), (2, 3, 1)])
def test_half_of_the_frequencies_are_enough(kernel):
    waves, multiplicity = half_spectrum(kernel)
    layer = Layer("c", 0, f"conv{len(kernel)}d", (3, 2, *kernel))
    weights = np.random.default_rng(0).normal(size=layer.shape)
    count, _, _ = matrices_shape(layer, "fft")
    assert multiplicity.sum() == count
    assert len(waves) <= count // 2 + 2 ** len(kernel)
    slices = kernel_slices(weights, layer)
    half = np.linalg.svd((waves @ slices.reshape(len(slices), -1)).reshape(-1, 3, 2), compute_uv=False)
    whole = np.linalg.svd(as_matrices(weights, layer, "fft"), compute_uv=False)
    repeated = np.repeat(half, multiplicity, axis=0)
    np.testing.assert_allclose(np.sort(repeated.ravel()), np.sort(whole.ravel()), atol=1e-12)


def test_a_kernel_larger_than_the_torus_makes_it_larger():
    assert matrices_shape(Layer("c", 0, "conv1d", (3, 2, 128)), "fft") == (128, 3, 2)
    assert matrices_shape(Layer("c", 0, "conv2d", (3, 2, 64, 7)), "fft") == (64 * 32, 3, 2)
