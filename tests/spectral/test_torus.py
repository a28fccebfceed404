import numpy as np
import pytest

from raylab.layers import as_matrices, kernel_slices
from raylab.spectral import spectrum, torus
from raylab.types import Layer, SpectralOptions


def by_svd(stack):
    return np.sort(np.linalg.svd(stack, compute_uv=False).ravel() ** 2)


@pytest.mark.parametrize("shape", [(6, 4, 3), (4, 6, 3, 3), (5, 5, 1, 2), (3, 4, 2, 3, 2)])
@pytest.mark.parametrize("groups", ["stored", "blocks"])
def test_eigenvalues_are_squared_singular_values_at_every_frequency(shape, groups):
    shape = (2 * shape[0], *shape[1:])
    layer = Layer("c", 0, f"conv{len(shape) - 2}d", shape, groups=2)
    weights = np.random.default_rng(0).standard_t(3, size=shape).astype(np.float32)
    expected = by_svd(as_matrices(weights, layer, "fft", groups))
    found = spectrum(weights, layer, SpectralOptions(device="cpu", conv="fft", groups=groups))
    np.testing.assert_allclose(found.evals, expected, rtol=1e-9, atol=1e-13 * expected[-1])
    assert (max(found.matrices.shape[1:]), min(found.matrices.shape[1:])) == (found.N, found.M)


def test_pieces_give_the_same(monkeypatch):
    layer = Layer("c", 0, "conv2d", (6, 4, 3, 3), groups=2)
    slices = kernel_slices(np.random.default_rng(0).normal(size=layer.shape), layer, "blocks")
    whole = torus.torus_eigenvalues(slices, (3, 3), device="cpu")
    monkeypatch.setattr(torus, "CHUNK_BYTES", 3000)
    np.testing.assert_allclose(
        np.sort(torus.torus_eigenvalues(slices, (3, 3), device="cpu")), np.sort(whole), rtol=1e-12
    )


def test_small_singular_values_survive():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(30, 30)) + 1j * rng.normal(size=(30, 30))).Q for _ in range(2))
    singular = np.logspace(-10, 0, 30)
    evals = torus.complex_eigenvalues(((left * singular) @ right)[None], device="cpu")
    np.testing.assert_allclose(evals[0], singular**2, rtol=1e-4)


def test_single_precision_is_close_and_float64():
    stack = np.random.default_rng(0).normal(size=(3, 20, 30)) + 1j
    single = torus.complex_eigenvalues(stack, "float32", "cpu")
    assert single.dtype == np.float64
    error = np.abs(single - torus.complex_eigenvalues(stack, "float64", "cpu")).max()
    assert 0 < error < 1e-4 * single.max()


def test_a_bad_number_makes_the_whole_spectrum_nan():
    weights = np.ones((4, 3, 3, 3))
    weights[0, 1, 2, 0] = np.inf
    evals = spectrum(weights, Layer("c", 0, "conv2d", weights.shape), SpectralOptions(device="cpu", conv="fft")).evals
    assert evals.shape == (3 * 1024,)
    assert np.isnan(evals).all()


def test_other_layers_are_as_ever():
    weights = np.random.default_rng(0).normal(size=(9, 7))
    layer = Layer("l", 0, "linear", weights.shape)
    plain, fourier = (spectrum(weights, layer, SpectralOptions(device="cpu", conv=conv)) for conv in ("pooled", "fft"))
    np.testing.assert_array_equal(plain.evals, fourier.evals)
