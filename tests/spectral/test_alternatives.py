import math
import warnings

import numpy as np
import pytest

from raylab.results import schema
from raylab.spectral import columns, fit, resolve, version
from raylab.spectral.metrics import alternatives
from raylab.types import SpectralOptions, Spectrum

RATIOS = ("lognormal_ratio", "exponential_ratio", "truncated_ratio")
THEIRS = {"lognormal": "lognormal", "exponential": "exponential", "truncated": "truncated_power_law"}


def of(evals, **options):
    evals = np.sort(np.asarray(evals, dtype=float))
    options = SpectralOptions(device="cpu", **options)
    return Spectrum(evals=evals, N=len(evals), M=len(evals), options=options)


def spectra():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(300, 150)) / 20, rng.standard_t(3, size=(200, 160)) / 10
    return {
        "bulk": np.linalg.eigvalsh(weights[0].T @ weights[0]),
        "heavy": np.linalg.eigvalsh(weights[1].T @ weights[1]),
        "pareto": rng.pareto(1.5, 400) + 1,
        "exponential": rng.exponential(size=400) + 0.5,
        "lognormal": rng.lognormal(0, 1, 400),
    }


@pytest.mark.parametrize("estimator", ["ks", "median"])
@pytest.mark.parametrize("name", spectra())
def test_ratios_and_p_are_those_of_powerlaw_or_ours_is_the_likelier_law(name, estimator):
    powerlaw = pytest.importorskip("powerlaw")
    one = of(spectra()[name], estimator=estimator)
    ours = alternatives(one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its defaults cap alpha at 3, of the truncated law too.
        theirs = powerlaw.Fit(one.evals, xmin=fit(one).xmin, parameter_ranges={"alpha": [0, None]}, verbose=False)
        for law, their_name in THEIRS.items():
            ratio, p = theirs.distribution_compare("power_law", their_name)
            if ours[f"{law}_ratio"] == pytest.approx(ratio, abs=1e-4):
                assert ours[f"{law}_p"] == pytest.approx(p, abs=2e-3), law
            else:
                assert ours[f"{law}_ratio"] < likelihood_ratio_at(their_name, theirs, one), law


def likelihood_ratio_at(name, theirs, one):
    """The ratio for the parameters that powerlaw's optimiser ends with, in 50 digits: it underflows in places."""
    import mpmath

    law = getattr(theirs, name)
    tail = one.evals[one.evals >= fit(one).xmin]
    alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
    with mpmath.workdps(50):
        x, xmin = [mpmath.mpf(float(v)) for v in tail], mpmath.mpf(float(tail[0]))
        ours = sum(mpmath.log((alpha - 1) / xmin) - alpha * mpmath.log(v / xmin) for v in x)
        if name == "lognormal":
            mu, sigma = mpmath.mpf(float(law.mu)), mpmath.mpf(float(law.sigma))
            above = mpmath.erfc((mpmath.log(xmin) - mu) / (sigma * mpmath.sqrt(2))) / 2
            each = [-mpmath.log(v) - (mpmath.log(v) - mu) ** 2 / (2 * sigma**2) for v in x]
            constant = mpmath.log(sigma * mpmath.sqrt(2 * mpmath.pi) * above)
        else:
            a, rate = mpmath.mpf(float(law.alpha)), mpmath.mpf(float(law.Lambda))
            each = [-a * mpmath.log(v / xmin) - rate * v for v in x]
            constant = mpmath.log(xmin * mpmath.expint(a, rate * xmin))
        return float(ours - sum(each) + len(x) * constant)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", spectra())
def test_nothing_depends_on_the_scale(name, scale):
    relative = {"threshold_kind": "relative", "threshold": 1e-10}
    evals = spectra()[name]
    one, other = alternatives(of(evals, **relative)), alternatives(of(evals * scale, **relative))
    for column, value in one.items():
        assert other[column] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6, abs=1e-7)), column


@pytest.mark.parametrize(
    ("name", "best"), [("pareto", "power_law"), ("exponential", "exponential"), ("lognormal", "lognormal")]
)
def test_the_law_that_made_the_tail_is_named(name, best):
    rng = np.random.default_rng(1)
    draw = {
        "pareto": rng.pareto(1.5, 3000) + 1,
        "exponential": rng.exponential(size=3000) + 0.5,
        "lognormal": rng.lognormal(0, 0.4, 3000) + 1e-3,
    }[name]
    values = alternatives(of(draw, estimator="median"))
    assert values["best_law"] == best
    assert (values["exponential_ratio"] > 0) == (name == "pareto")


@pytest.mark.parametrize("name", spectra())
def test_a_law_that_contains_the_power_law_is_never_less_likely(name):
    values = alternatives(of(spectra()[name]))
    assert values["lognormal_ratio"] <= 1e-6 and values["truncated_ratio"] <= 0
    assert values["truncated_ratio"] <= values["exponential_ratio"] + 1e-6  # it contains that one too
    assert all(0 <= values[f"{law}_p"] <= 1 for law in THEIRS)


@pytest.mark.parametrize(
    ("evals", "status"),
    [
        ([], "too_few"),
        ([0.0] * 29 + [5.0], "too_few"),
        (np.zeros(30), "too_few"),
        (np.ones(30), "constant"),
        ([1.0, math.nan], "non_finite"),
        ([1.0, 2.0], "ok"),
        ([1.0] * 25 + [7.0] * 25, "ok"),
        (np.geomspace(1e-4, 1e200, 60), "ok"),
    ],
)
def test_odd_spectra(evals, status):
    values = alternatives(of(evals))
    assert values["alternatives_status"] == status
    assert (values["best_law"] is not None) == (status == "ok")
    assert all(math.isfinite(values[name]) == (status == "ok") for name in RATIOS)


def test_columns_are_known_and_typed():
    found = columns(resolve(["uncertainty", "alternatives"]), SpectralOptions(device="cpu", bootstrap=4, synthetic=4))
    assert set(found) <= set(schema.KNOWN)
    assert all(schema.ARROW[kind] == schema.KNOWN[column].type for column, kind in found.items())
    assert version(["alternatives"]) != version(["uncertainty"])
