import math

import numpy as np
import pytest

from raylab.spectral import METRICS, spectrum
from raylab.spectral.metrics import (
    alternatives,
    erg,
    marchenko_pastur,
    norms,
    power_law,
    randomized,
    standard,
    uncertainty,
)
from raylab.types import Layer, SpectralOptions, Spectrum

CPU = SpectralOptions(device="cpu")


def of(weights, kind="linear", seed=0):
    weights = np.asarray(weights, dtype=float)
    return spectrum(weights, Layer("x", 0, kind, weights.shape), CPU, seed)


def heavy(shape=(150, 120), seed=0):
    return np.random.default_rng(seed).standard_t(3, size=shape) / 10


def test_norms_of_a_diagonal_matrix_by_hand():
    values = norms(of(np.diag([3.0, 2.0, 1.0])))
    p = np.array([9, 4, 1]) / 14
    assert values == {
        "log_norm": pytest.approx(math.log10(14)),
        "frobenius_norm": pytest.approx(math.sqrt(14)),
        "spectral_norm": pytest.approx(9),
        "log_spectral_norm": pytest.approx(math.log10(9)),
        "sigma_max": pytest.approx(3),
        "stable_rank": pytest.approx(14 / 9),
        "entropy": pytest.approx(-(p * np.log(p)).sum() / math.log(3), rel=1e-8),
        "matrix_rank": 3,
        "rank_loss": 0,
    }


def test_rank_loss_counts_what_is_missing():
    weights = heavy((40, 30))
    weights[:, 20:] = weights[:, :10]
    values = norms(of(weights))
    assert (values["matrix_rank"], values["rank_loss"]) == (20, 10)


def test_alpha_hat_and_log_alpha_norm():
    evals = of(heavy()).evals
    values = power_law(of(heavy()))
    assert values["alpha_hat"] == pytest.approx(values["alpha"] * math.log10(evals[-1]))
    assert values["log_alpha_norm"] == pytest.approx(math.log10((evals ** values["alpha"]).sum()))


def test_log_alpha_norm_does_not_overflow():
    steep = np.linspace(1e40, 1.01e40, 60)  # alpha in the hundreds: lambda^alpha is far beyond 1e308
    values = power_law(Spectrum(evals=steep, N=60, M=60, options=CPU))
    assert values["alpha"] > 100
    assert values["log_alpha_norm"] == pytest.approx(values["alpha_hat"], abs=2)


@pytest.mark.parametrize(
    ("evals", "number"),
    [
        ([0.5, 1.5], 2),  # 1.5, then the scan is over
        ([0.1, 0.2, 2.7], 2),  # 2.7, then 2.7 * 0.2 < 1
        ([1.0, 2.0, 27.0], 2),  # the same after scaling to mean 1: 2.7, then 0.54
        ([0.0, 0.0, 6.0], 2),
        ([1.0, 1.0, 1.0], None),
        ([1.0], None),
    ],
)
def test_erg_by_hand(evals, number):
    assert erg(Spectrum(evals=np.array(evals), N=3, M=3, options=CPU))["num_erg"] == number


def test_erg_does_not_underflow():
    evals = np.sort(np.concatenate([np.full(4000, 1e-3), np.linspace(1, 20, 2000)]))
    number = erg(Spectrum(evals=evals, N=6000, M=6000, options=CPU))["num_erg"]
    logs = np.log(evals * len(evals) / evals.sum())[::-1]
    assert number == np.argmax(np.cumsum(logs) < 0) + 1
    assert 2000 < number < 6000


def test_the_permuted_control_is_the_seeds_alone():
    one, same, other = (randomized(of(heavy(), seed=seed)) for seed in (4, 4, 5))
    assert one == same
    assert one["rand_lambda_max"] != other["rand_lambda_max"]


def test_a_planted_direction_is_gone_after_permutation():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(200, 150)) / 20 + np.outer(rng.normal(size=200), rng.normal(size=150)) / 20
    values = randomized(of(weights))
    assert values["rand_softrank"] < 0.2
    assert values["rand_maxdist"] > 0
    assert values["num_traps"] == 0
    assert marchenko_pastur(of(weights))["num_spikes"] >= 1


def test_the_control_leaves_the_weights_alone():
    weights = heavy((30, 20))
    before = weights.copy()
    randomized(of(weights))
    np.testing.assert_array_equal(weights, before)


ODD = {
    "zero": np.zeros((20, 30)),
    "nan": np.full((20, 30), np.nan),
    "infinite": np.full((20, 30), np.inf),
    "orthogonal": np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30))).Q,
    "rank one": np.outer(np.arange(1, 21.0), np.arange(1, 31.0)),
    "one row": np.arange(1, 21.0)[None],
    "one number": np.ones((1, 1)),
    "no rows": np.zeros((0, 5)),
    "tiny": np.random.default_rng(0).normal(size=(20, 30)) * 1e-30,
    "huge": np.random.default_rng(0).normal(size=(20, 30)) * 1e30,
}


@pytest.mark.parametrize("metric", [standard, marchenko_pastur, randomized, uncertainty, alternatives])
@pytest.mark.parametrize("name", ODD)
def test_no_weights_make_a_metric_raise(metric, name):
    values = metric(of(ODD[name]))
    assert values.keys() == metric(of(heavy())).keys()
    assert not any(isinstance(value, float) and math.isinf(value) for value in values.values()), values


def test_the_status_says_what_is_wrong():
    expected = {"zero": "too_few", "nan": "non_finite", "infinite": "non_finite", "orthogonal": "constant"}
    assert {name: standard(of(ODD[name]))["fit_status"] for name in expected} == expected
    assert marchenko_pastur(of(ODD["zero"]))["mp_status"] == "zero"
    assert randomized(of(ODD["nan"]))["rand_status"] == "non_finite"


def test_counts_that_do_not_exist_are_none():
    values = standard(of(ODD["nan"])) | marchenko_pastur(of(ODD["nan"]))
    missing = [values[name] for name in ("num_tail", "matrix_rank", "rank_loss", "num_erg", "erg_gap", "num_spikes")]
    assert missing == [None] * 6
    assert values["num_evals"] == 20


def test_what_ships():
    assert set(METRICS) == {
        "standard",
        "power_law",
        "norms",
        "erg",
        "esd",
        "marchenko_pastur",
        "randomized",
        "uncertainty",
        "alternatives",
    }
