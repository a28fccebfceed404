import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raylab.errors import UserError
from raylab.spectral import backend, slice_spectra, spectra, spectrum
from raylab.types import Layer, SpectralOptions

CPU = SpectralOptions(device="cpu")


@pytest.fixture(autouse=True)
def _forget_devices():
    """What a test makes of the devices at hand must not outlive it."""
    yield
    backend.resolve_device.cache_clear()


def evals_of(weights, kind="linear", **options):
    layer = Layer("x", 0, kind, tuple(weights.shape))
    return spectrum(weights, layer, SpectralOptions(device="cpu", **options)).evals


def by_svd(matrix):
    return np.sort(np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False) ** 2)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_eigenvalues_are_squared_singular_values(rows, columns, seed):
    weights = np.random.default_rng(seed).standard_t(3, size=(rows, columns)).astype(np.float32)
    truth = by_svd(weights)
    np.testing.assert_allclose(evals_of(weights), truth, rtol=0, atol=1e-13 * truth[-1])


@pytest.mark.parametrize("shape", [(64, 64), (512, 300), (300, 512)])
def test_a_view_that_is_not_contiguous_gives_the_same(shape):
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = evals_of(weights)
    np.testing.assert_allclose(evals_of(np.asfortranarray(weights)), expected, rtol=1e-11, atol=1e-12)
    padded = np.zeros((2 * shape[0], 2 * shape[1]), np.float32)
    padded[::2, ::2] = weights
    np.testing.assert_allclose(evals_of(padded[::2, ::2]), expected, rtol=1e-11, atol=1e-12)


def test_torch_tensors_of_any_dtype():
    weights = torch.randn(30, 20, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = by_svd(weights.float().numpy())
    for tensor in (weights, weights.half(), weights.float(), weights.double().requires_grad_()):
        np.testing.assert_allclose(evals_of(tensor), expected, rtol=2e-2)
    np.testing.assert_allclose(evals_of(weights), expected, rtol=1e-10)


def test_a_large_matrix_gives_the_same_by_either_lapack(monkeypatch):
    weights = np.random.default_rng(0).normal(size=(150, 120))
    expected = evals_of(weights)
    monkeypatch.setattr(backend, "_mkl_from", lambda: 100)
    np.testing.assert_allclose(evals_of(weights), expected, rtol=1e-11)


def test_dead_units_count_as_exact_zeros():
    weights = np.random.default_rng(0).normal(size=(40, 30))
    weights[:, [3, 4]] = 0
    weights[[0, 7, 9], :] = 0
    evals = evals_of(weights)
    assert len(evals) == 30
    assert np.count_nonzero(evals == 0) == 2
    np.testing.assert_allclose(evals[2:], by_svd(weights)[2:], rtol=1e-10)


def test_small_singular_values_survive():
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(50, 50))).Q, np.linalg.qr(rng.normal(size=(50, 50))).Q
    singular = np.logspace(-10, 0, 50)  # squared, the least is 1e-20: lost in a float64 Gram matrix
    np.testing.assert_allclose(evals_of((left * singular) @ right), singular**2, rtol=1e-4)


def test_rank_one():
    u, v = np.random.default_rng(0).normal(size=(2, 25))
    evals = evals_of(np.outer(u, v))
    assert evals[-1] == pytest.approx((u @ u) * (v @ v))
    assert evals[:-1].max() < 1e-28 * evals[-1]


def test_orthogonal():
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40))).Q
    np.testing.assert_allclose(evals_of(matrix), 1, rtol=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_makes_the_whole_spectrum_nan(bad):
    weights = np.ones((10, 12))
    weights[3, 4] = bad
    evals = evals_of(weights)
    assert evals.shape == (10,)
    assert np.isnan(evals).all()


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (0, 4)])
def test_zeros(shape):
    np.testing.assert_array_equal(evals_of(np.zeros(shape)), np.zeros(min(shape)))


def test_convolutions_by_treatment():
    weights = np.random.default_rng(0).normal(size=(12, 8, 3, 3)).astype(np.float32)
    pooled = np.sort(np.concatenate([by_svd(weights[:, :, i, j]) for i in range(3) for j in range(3)]))
    np.testing.assert_allclose(evals_of(weights, "conv2d"), pooled / 2, rtol=1e-9)
    np.testing.assert_allclose(evals_of(weights, "conv2d", conv="reshape"), by_svd(weights.reshape(12, -1)), rtol=1e-9)
    layer = Layer("c", 0, "conv2d", weights.shape)
    slices = slice_spectra(weights, layer, SpectralOptions(device="cpu", conv="slices"))
    assert len(slices) == 9
    np.testing.assert_allclose(slices[5].evals, by_svd(weights[:, :, 1, 2]) * 9 / 2, rtol=1e-9)
    assert (slices[5].N, slices[5].M) == (12, 8)


@pytest.mark.parametrize(("conv", "message"), [("slices", "several spectra"), ("pool", "Did you mean 'pooled'")])
def test_a_treatment_that_does_not_fit_is_one_clear_line(conv, message):
    with pytest.raises(UserError, match=message):
        evals_of(np.ones((4, 4, 3, 3)), "conv2d", conv=conv)


def test_many_layers_come_back_in_their_order_with_their_seeds():
    rng = np.random.default_rng(0)
    shapes = [(9, 4), (4, 9), (6, 6), (9, 4)]
    items = [(rng.normal(size=shape), Layer(f"l{i}", i, "linear", shape)) for i, shape in enumerate(shapes)]
    found = spectra(items, CPU, seeds=[5, 6, 7, 8])
    for one, (weights, layer), seed in zip(found, items, [5, 6, 7, 8], strict=True):
        np.testing.assert_allclose(one.evals, by_svd(weights), rtol=1e-9)
        assert (one.layer, one.seed, one.N, one.M) == (layer, seed, max(layer.shape), min(layer.shape))


def test_grouping_by_shape_gives_the_same_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(12, 8, 3, 3), (20, 8), (12, 8, 1, 1), (20, 8)]
    kinds = ["conv2d", "linear", "conv2d", "linear"]
    items = [(rng.normal(size=s), Layer("x", 0, k, s)) for s, k in zip(shapes, kinds, strict=True)]
    alone = [one.evals for one in spectra(items, CPU)]
    calls = []
    monkeypatch.setattr(backend, "available", lambda name: True)
    monkeypatch.setattr(
        backend, "_cupy", lambda stack, dtype: calls.append(stack.shape) or np.array(backend._numpy(stack, dtype))
    )
    together = spectra(items, SpectralOptions(device="cupy"))
    backend.resolve_device.cache_clear()
    assert calls == [(10, 12, 8), (2, 20, 8)]
    for one, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.evals, expected, rtol=1e-10)


def test_the_eigenvalues_cannot_be_changed_by_a_metric():
    with pytest.raises(ValueError, match="read-only"):
        evals_of(np.eye(4))[0] = 3


def test_float32_is_close_and_float64():
    weights = np.random.default_rng(0).normal(size=(60, 50))
    single = evals_of(weights, dtype="float32")
    assert single.dtype == np.float64
    assert 0 < np.max(np.abs(single - evals_of(weights))) < 1e-4 * single[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SpectralOptions(device="gpu"), "Unknown device"),
        (SpectralOptions(dtype="float16"), "Unknown dtype"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(UserError, match=message):
        spectrum(np.eye(3), Layer("x", 0, "linear", (3, 3)), options)


@pytest.mark.parametrize("device", ["cuda", "cupy", "torch-cuda"])
def test_a_gpu_that_is_not_there(device, monkeypatch):
    monkeypatch.setattr(backend, "available", lambda name: name == "cpu")
    backend.resolve_device.cache_clear()
    with pytest.raises(UserError, match="GPU"):
        backend.resolve_device(device)
    assert backend.resolve_device("auto") == "cpu"


def test_a_long_ill_conditioned_matrix_is_not_widened_whole():
    """An embedding with two equal columns, as with dead ones: the answer is that of an SVD, from blocks of rows."""
    weights = np.random.default_rng(0).standard_normal((20_000, 40), np.float32)
    weights[:, 1], weights[:, 2], weights[::7] = weights[:, 0], 0, 0
    expected = np.linalg.svd(weights.astype(np.float64), compute_uv=False)[::-1]
    tracemalloc.start()
    evals = backend.eigenvalues_of([weights], device="cpu")[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(np.sqrt(evals), expected, rtol=0, atol=1e-13 * expected[-1])
    assert np.sqrt(evals[1]) < 1e-12 * expected[-1] and peak < 3 * weights.nbytes
