import math
import warnings

import numpy as np
import pytest

from raylab.errors import UserError
from raylab.spectral import columns, fit, fit_evals, measure_spectrum, resolve, spectrum
from raylab.spectral.uncertainty import synthetic, uncertainty
from raylab.types import Layer, SpectralOptions, Spectrum, generator


def of(evals, seed=0, **options):
    evals = np.sort(np.asarray(evals, dtype=float))
    return Spectrum(
        evals=evals, N=len(evals), M=len(evals), seed=seed, options=SpectralOptions(device="cpu", **options)
    )


def pareto(seed, size=300, alpha=2.5):
    return np.random.default_rng([seed, size]).pareto(alpha - 1, size) + 1


@pytest.fixture(scope="module")
def of_power_laws():
    return [uncertainty(of(pareto(seed, 200), seed, bootstrap=60, synthetic=50)) for seed in range(100)]


def test_the_interval_covers_the_truth(of_power_laws):
    covered = sum(values["alpha_lo"] <= 2.5 <= values["alpha_hi"] for values in of_power_laws)
    assert 88 <= covered <= 100


def test_p_is_about_uniform_for_power_laws(of_power_laws):
    """About: xmin is chosen, and the body comes from the data, so that p is somewhat too large in the middle."""
    p = np.array([values["gof_p"] for values in of_power_laws])
    assert 0.01 <= np.mean(p <= 0.1) <= 0.19  # three standard errors of a share of 100
    assert 0.35 <= np.median(p) <= 0.8
    assert np.mean(p >= 0.9) >= 0.02
    assert all(values["uncertainty_status"] == "ok" for values in of_power_laws)


def bulk(seed):
    weights = np.random.default_rng(seed).normal(size=(600, 300)) / 20
    return np.linalg.eigvalsh(weights.T @ weights)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: np.random.default_rng(seed).uniform(1, 2, 1000),
        lambda seed: np.random.default_rng(seed).lognormal(size=8000),
        bulk,
    ],
    ids=["uniform", "lognormal", "Marchenko-Pastur"],
)
def test_p_is_small_where_there_is_no_power_law(draw):
    """Of as many points as that takes: as xmin is free, a short tail can be found that could be a power law's."""
    p = [uncertainty(of(draw(seed), bootstrap=0, synthetic=100))["gof_p"] for seed in range(7)]
    assert np.median(p) <= 0.1
    assert min(p) < 0.03


def naive(evals, options, seed):
    """The definitions, written down once more: every refit from eigenvalues, nothing shared."""
    points = evals[evals > 1e-5]
    found = fit_evals(evals, options)
    rng = generator(seed, "bootstrap")
    zeros = np.zeros(len(evals) - len(points))
    alphas = []
    for _ in range(options.bootstrap):
        drawn = rng.choice(points, len(points))
        alphas.append(fit_evals(np.sort(np.concatenate([zeros, drawn])), options).alpha)
    return found.alpha, np.percentile(alphas, [5, 95]), np.std(alphas, ddof=1)


@pytest.mark.parametrize("options", [{}, {"small_sample": "standard"}, {"estimator": "median"}])
@pytest.mark.parametrize("size", [15, 150])
def test_the_interval_is_that_of_the_definition(options, size):
    evals = np.sort(np.concatenate([np.zeros(4), pareto(1, size)]))
    options = SpectralOptions(bootstrap=40, synthetic=0, confidence=0.9, device="cpu", **options)
    values = uncertainty(Spectrum(evals=evals, N=200, M=len(evals), seed=7, options=options))
    _, (lo, hi), se = naive(evals, options, 7)
    assert (values["alpha_lo"], values["alpha_hi"], values["alpha_se"]) == pytest.approx((lo, hi, se), rel=1e-12)
    assert (values["bootstrap_n"], values["gof_n"]) == (40, 0)
    assert math.isnan(values["gof_p"])


def test_p_agrees_with_one_whose_fits_are_powerlaws():
    """gof_p against the same procedure around the package of Alstott et al., with draws of its own."""
    powerlaw = pytest.importorskip("powerlaw")
    evals = np.sort(np.concatenate([np.random.default_rng(3).uniform(0.2, 1, 60), pareto(4, 60)]))

    def fitted(points):  # without the range its alpha is silently capped at 3
        return powerlaw.Fit(points, parameter_ranges={"alpha": [1, None]}, verbose=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what it deprecates
        theirs = fitted(evals)
        body, rng = evals[evals < theirs.xmin], np.random.default_rng(5)
        exceeding = 0
        for _ in range(100):
            in_tail = rng.random(len(evals)) >= len(body) / len(evals)
            tail = theirs.xmin * rng.random(int(in_tail.sum())) ** (-1 / (theirs.alpha - 1))
            sample = np.concatenate([tail, rng.choice(body, int((~in_tail).sum()))])
            exceeding += fitted(sample).D >= theirs.D
    ours = uncertainty(of(evals, bootstrap=0, synthetic=1000))["gof_p"]
    assert ours == pytest.approx(exceeding / 100, abs=0.15)  # three standard errors of a share of 100


def test_synthetic_samples_are_the_fitted_law_above_xmin_and_the_data_below():
    points = np.sort(np.concatenate([np.random.default_rng(0).uniform(0.1, 1, 500), pareto(0, 500)]))
    found = fit(of(points))
    drawn = np.concatenate([synthetic(points, found, np.random.default_rng(seed)) for seed in range(50)])
    assert set(drawn[drawn < found.xmin]) <= set(points)
    tail = drawn[drawn >= found.xmin]
    assert len(tail) / len(drawn) == pytest.approx(np.mean(points >= found.xmin), abs=0.01)
    assert 1 + 1 / np.mean(np.log(tail / found.xmin)) == pytest.approx(found.alpha, rel=0.02)


def test_the_answer_is_the_seeds_whatever_else_is_measured():
    weights = np.random.default_rng(0).standard_t(3, size=(60, 50)) / 8
    layer = Layer("fc", 0, "linear", (60, 50))
    few = SpectralOptions(device="cpu", bootstrap=20, synthetic=20)
    alone = measure_spectrum(spectrum(weights, layer, few, 3), resolve(["uncertainty"]))
    among = measure_spectrum(spectrum(weights, layer, few, 3), resolve(["randomized", "uncertainty", "standard"]))
    other = measure_spectrum(spectrum(weights, layer, few, 4), resolve(["uncertainty"]))
    assert alone.items() <= among.items()
    assert alone["alpha_lo"] != other["alpha_lo"]


def test_without_replicas_there_is_no_number():
    values = uncertainty(of(pareto(0), bootstrap=0, synthetic=0))
    assert (values["bootstrap_n"], values["gof_n"], values["uncertainty_status"]) == (0, 0, "ok")
    assert all(math.isnan(values[name]) for name in ("alpha_lo", "alpha_hi", "alpha_se", "gof_p"))


@pytest.mark.parametrize(
    ("evals", "status"),
    [
        ([], "too_few"),
        ([1.0], "too_few"),
        (np.zeros(30), "too_few"),
        ([0.0] * 29 + [5.0], "too_few"),  # rank one
        (np.ones(30), "constant"),
        (np.full(30, np.nan), "non_finite"),
        ([1.0, 2.0], "ok"),
    ],
)
def test_odd_spectra(evals, status):
    values = uncertainty(of(evals, bootstrap=30, synthetic=30))
    assert values["uncertainty_status"] == status
    assert (values["bootstrap_n"] > 0) == (status == "ok")
    assert math.isfinite(values["gof_p"]) == (status == "ok")


def test_refits_that_fail_are_left_out():
    values = uncertainty(of([1.0, 2.0], bootstrap=30, synthetic=30))  # half the resamplings are twice the same point
    assert 0 < values["bootstrap_n"] < 30


@pytest.mark.parametrize(
    "wrong", [{"bootstrap": -1}, {"bootstrap": 1}, {"synthetic": 1}, {"confidence": 1.0}, {"confidence": 0.0}]
)
def test_impossible_numbers_are_one_clear_line(wrong):
    (name,) = wrong
    for call in (lambda o: columns(resolve(["norms"]), o), lambda o: uncertainty(of(pareto(0), **wrong))):
        with pytest.raises(UserError, match=name) as caught:
            call(SpectralOptions(device="cpu", **wrong))
        assert "\n" not in str(caught.value)
