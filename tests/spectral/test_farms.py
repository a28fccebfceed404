"""FARMS and the Hill estimator from the median, against their authors' definitions written down independently."""

import math

import numpy as np
import pytest
import torch

from raylab.errors import UserError
from raylab.spectral import columns, fit, fit_evals, measure, resolve, spectrum
from raylab.spectral.farms import window_places, window_shape
from raylab.types import Layer, SpectralOptions, Spectrum


def options(**settings):
    return SpectralOptions(device="cpu", estimator="farms", **settings)


def of(weights, kind="linear", **settings):
    weights = np.asarray(weights, dtype=float)
    return spectrum(weights, Layer("x", 0, kind, weights.shape), options(**settings))


def windows_as_published(matrix, rows, aspect, places, step):
    """github.com/HUST-AI-HYZ/FARMS, LLM_Pruning/lib/sampling.py (June 2025): where its windows lie, in our own words.

    `fixed_sampling`: so many windows a side, the first at 0, spaced by the floor of room / (places - 1), at least 1.
    `matrix_size_dependent_sampling`: one window every `step` rows and columns.
    """
    columns = int(rows * aspect)
    evals = []
    room = (matrix.shape[0] - rows, matrix.shape[1] - columns)
    spacing = [step or max(1, r // (places - 1)) for r in room]
    count = [max(1, r // s + 1) for r, s in zip(room, spacing, strict=True)]
    count = count if step else [min(places, c) for c in count]
    for i in range(count[0]):
        for j in range(count[1]):
            top, left = i * spacing[0], j * spacing[1]
            window = torch.from_numpy(matrix[top : top + rows, left : left + columns])
            evals.append(torch.square(torch.linalg.svdvals(window)))
    return torch.sort(torch.cat(evals)).values


def hill_as_published(evals):
    """TempBalance (Zhou et al., NeurIPS 2023), tempbalance.py, pl_fitting="median", xmin_pos=2; FARMS uses the same."""
    start = int(len(evals) / 2)
    n = len(evals) - start
    logs = torch.log(evals)
    alpha = 1 + n / (logs[start:].sum() - n * logs[start])
    ranks = torch.arange(n, dtype=evals.dtype) / n
    return float(alpha), float((1 - (evals[start:] / evals[start]) ** (1 - alpha) - ranks).abs().max())


@pytest.mark.parametrize("shape", [(150, 260), (300, 220), (130, 700)])
@pytest.mark.parametrize(("rows", "aspect", "places", "step"), [(100, 2.0, 10, 0), (60, 1.0, 5, 0), (90, 0.5, 10, 30)])
def test_alpha_and_D_are_those_of_the_authors_windows(shape, rows, aspect, places, step):
    weights = np.random.default_rng(shape).standard_t(3, size=shape) / 10
    found = fit(of(weights, farms_rows=rows, farms_aspect=aspect, farms_places=places, farms_step=step))
    evals = windows_as_published(weights, rows, aspect, places, step)
    alpha, D = hill_as_published(evals)
    assert (found.alpha, found.D) == pytest.approx((alpha, D), rel=1e-8)
    assert (found.xmin, found.num_tail) == (pytest.approx(float(evals[len(evals) // 2])), len(evals) - len(evals) // 2)


@pytest.mark.parametrize("shape", [(101, 80), (80, 100), (512, 512)])
def test_the_median_estimator_is_tempbalances(shape):
    weights = np.random.default_rng(shape).standard_t(3, size=shape) / 10
    evals = torch.sort(torch.square(torch.linalg.svdvals(torch.from_numpy(weights)))).values
    found = fit_evals(np.linalg.eigvalsh(weights.T @ weights)[-min(shape) :], SpectralOptions(estimator="median"))
    assert (found.alpha, found.D) == pytest.approx(hill_as_published(evals), rel=1e-8)


def test_where_a_zero_median_costs_tempbalance_its_alpha_ours_starts_above_the_threshold():
    evals = np.concatenate([np.zeros(30), np.arange(1.0, 11.0)])
    assert math.isnan(hill_as_published(torch.from_numpy(evals))[0])
    found = fit_evals(evals, SpectralOptions(estimator="median"))
    assert (found.xmin, found.num_tail) == (1.0, 10)


def test_the_row_has_alpha_of_the_windows_and_norms_of_the_matrix():
    weights = np.random.default_rng(0).standard_t(3, size=(240, 300)) / 10
    layer, metrics = Layer("x", 0, "linear", weights.shape), resolve(["standard"])
    windows, whole = (measure(weights, layer, metrics, SpectralOptions(estimator=e)) for e in ("farms", "ks"))
    assert (windows["estimator"], windows["fit_status"]) == ("farms", "ok")
    assert windows["alpha"] != whole["alpha"]
    for name in ("log_norm", "spectral_norm", "stable_rank", "entropy", "num_evals", "num_erg"):
        assert windows[name] == whole[name]
    assert windows["alpha_hat"] == pytest.approx(windows["alpha"] * whole["log_spectral_norm"])
    assert windows["erg_gap"] == windows["num_erg"] - 120  # the tail is half of the eigenvalues


def test_alpha_does_not_depend_on_the_shape_of_a_random_matrix():
    """What FARMS is for: the whole spectrum's alpha moves with the aspect ratio, that of the windows does not."""
    rng = np.random.default_rng(0)
    shapes = [(400, 400), (200, 1200)]
    matrices = [rng.normal(size=shape) / 20 for shape in shapes]
    windows = [fit(of(matrix, farms_rows=80)).alpha for matrix in matrices]
    whole = [fit_evals(of(matrix).evals, SpectralOptions(estimator="median")).alpha for matrix in matrices]
    assert abs(windows[0] - windows[1]) < 0.05
    assert abs(whole[0] - whole[1]) > 0.5


@pytest.mark.parametrize("aspect", [0.3, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (30, 20), (99, 150), (20, 500), (500, 20)])
def test_windows_fit_in_and_keep_their_shape_where_they_can(shape, aspect):
    settings = options(farms_aspect=aspect)
    height, width = window_shape(*shape, settings)
    assert 1 <= height <= min(shape[0], 100) and 1 <= width <= shape[1]
    assert width == max(int(height * aspect), 1) or height == 1
    for length, size in zip(shape, (height, width), strict=True):
        places = window_places(length, size, settings)
        assert places[0] == 0 and places[-1] + size <= length and len(places) <= 10


def test_windows_of_all_slices_of_a_convolution_are_pooled():
    weights = np.random.default_rng(0).normal(size=(40, 30, 3, 3))
    found = of(weights, kind="conv2d")
    height, width = window_shape(*found.matrices.shape[1:], found.options)
    places = [len(window_places(n, s, found.options)) for n, s in zip((40, 30), (height, width), strict=True)]
    result = fit(found)
    total = 9 * math.prod(places) * min(height, width)
    assert (result.status, result.num_tail) == ("ok", total - total // 2)


@pytest.mark.parametrize(
    ("weights", "status"),
    [
        (np.zeros((20, 30)), "too_few"),
        (np.full((20, 30), np.nan), "non_finite"),
        (np.zeros((0, 5)), "too_few"),
        (np.ones((1, 1)), "too_few"),
        (np.ones((200, 300)), "constant"),  # rank one: each window has the same one eigenvalue
        (np.outer(np.arange(1, 21.0), np.arange(1, 31.0)), "ok"),
    ],
)
def test_odd_weights(weights, status):
    found = fit(of(weights))
    assert found.status == status
    assert math.isfinite(found.alpha) == (status == "ok")


def test_without_matrices_it_says_so():
    with pytest.raises(ValueError, match="needs the matrices"):
        fit(Spectrum(evals=np.arange(1.0, 9.0), N=8, M=8, options=options()))


@pytest.mark.parametrize("wrong", [{"farms_rows": 0}, {"farms_aspect": 0.0}, {"farms_places": 0}, {"farms_step": -1}])
def test_impossible_windows_are_one_clear_line(wrong):
    with pytest.raises(UserError, match="farms_rows, farms_places and farms_aspect must be positive") as caught:
        columns(resolve(["norms"]), options(**wrong))
    assert "\n" not in str(caught.value)
