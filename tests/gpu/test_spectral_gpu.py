"""On a GPU: the same eigenvalues as LAPACK, the same fits, the same answers to bad input."""

import numpy as np
import pytest

from raylab.spectral import backend, measure, measure_many, resolve, torus
from raylab.types import Layer, SpectralOptions

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["torch-cuda", "cupy"])
def device(request):
    if not backend.available(request.param):
        pytest.skip(f"{request.param} sees no GPU here")
    return request.param


def stack(count, rows, columns):
    return (np.random.default_rng(rows).standard_t(4, size=(count, rows, columns)) / rows).astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(1, 40, 24), (7, 24, 40), (300, 100, 100), (5, 512, 512), (3, 784, 512), (2, 1500, 1300)]
)
def test_eigenvalues_agree_with_lapack(device, shape):
    weights = stack(*shape)
    truth = backend.eigenvalues(weights, "float64", "cpu")
    evals = backend.eigenvalues(weights, "float64", device)
    assert evals.dtype == np.float64
    assert np.all(np.diff(evals) >= 0)
    np.testing.assert_allclose(evals, truth, rtol=0, atol=1e-12 * truth.max())


def test_a_stack_larger_than_one_call(device, monkeypatch):
    weights = stack(50, 64, 32)
    truth = backend.eigenvalues(weights, "float64", "cpu")
    monkeypatch.setattr(backend, "STACK_BYTES", 8 * 64 * 32 * 7)
    np.testing.assert_allclose(backend.eigenvalues(weights, "float64", device), truth, atol=1e-12 * truth.max())


def test_a_bad_matrix_spoils_no_other(device):
    weights = stack(4, 60, 40)
    weights[1, 3, 3] = np.nan
    weights[2] = 0
    evals = backend.eigenvalues(weights, "float64", device)
    assert np.isnan(evals[1]).all()
    assert not evals[2].any()
    truth = backend.eigenvalues(weights[[0, 3]], "float64", "cpu")
    np.testing.assert_allclose(evals[[0, 3]], truth, atol=1e-12 * truth.max())


def test_rank_one_is_exact(device):
    u, v = np.random.default_rng(0).normal(size=(2, 300))
    evals = backend.eigenvalues(np.outer(u, v)[None], "float64", device)[0]
    assert evals[-1] == pytest.approx((u @ u) * (v @ v), rel=1e-12)
    assert evals[:-1].max() < 1e-25 * evals[-1]


def test_metrics_agree_with_those_of_the_cpu(device):
    layers = [Layer(f"fc{i}", i, "linear", (512, 784)) for i in range(3)]
    items = list(zip(stack(3, 512, 784), layers, strict=True))
    metrics = resolve(["standard", "marchenko_pastur"])
    on_gpu = measure_many(items, metrics, SpectralOptions(device=device))
    for (weights, layer), values in zip(items, on_gpu, strict=True):
        truth = measure(weights, layer, metrics, SpectralOptions(device="cpu"))
        for column, value in truth.items():
            assert values[column] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), column


def test_float32_is_close(device):
    weights = stack(3, 300, 200)
    truth = backend.eigenvalues(weights, "float64", "cpu")
    np.testing.assert_allclose(backend.eigenvalues(weights, "float32", device), truth, atol=1e-5 * truth.max())


def test_complex_matrices_agree_with_lapack(device):
    weights = stack(20, 64, 48) + 1j * stack(20, 48, 64).transpose(0, 2, 1)
    truth = torus.complex_eigenvalues(weights, "float64", "cpu")
    evals = torus.complex_eigenvalues(weights, "float64", device)
    np.testing.assert_allclose(evals, truth, rtol=0, atol=1e-12 * truth.max())
