"""Laws by themselves, against scipy."""

import numpy as np
import pytest
import scipy.stats

from raylab.models.recording.entry_laws import (
    Constant,
    Normal,
    Uniform,
    affine,
    clamped,
    fixed,
    inverse_erf,
    normal,
    uniform,
)

FALSE_ALARM = 1e-6


@pytest.mark.parametrize(
    ("law", "theirs"),
    [
        (Normal(1.0, 2.0), scipy.stats.norm(1, 2)),
        (Uniform(-0.5, 2.0), scipy.stats.uniform(-0.5, 2.5)),
        (Normal(0.0, 2.0, -1.0, 5.0), scipy.stats.truncnorm(-0.5, 2.5, 0, 2)),
        (Normal(0.0, 1.0, 4.0, 5.0), scipy.stats.truncnorm(4, 5)),
        (Normal(0.0, 1.0, -30.0, -8.0), scipy.stats.truncnorm(-30, -8)),
        (Normal(3.0, 1.0, -1.0, 1.0), scipy.stats.truncnorm(-4, -2, 3, 1)),
    ],
)
def test_laws_against_scipy(law, theirs):
    drawn = law.draw(np.random.default_rng(50), (300, 400))
    assert scipy.stats.kstest(drawn.ravel().astype(float), theirs.cdf).pvalue > FALSE_ALARM
    assert drawn.min() >= law.low and drawn.max() <= law.high
    assert scipy.stats.kstest(1.05 * drawn.ravel(), theirs.cdf).pvalue < FALSE_ALARM


def test_a_scalar_is_a_float32_too():
    for law in (Normal(0.0, 1.0), Normal(0.0, 1.0, -1.0, 1.0), Uniform(0.0, 1.0), Constant(2.0)):
        assert law.draw(np.random.default_rng(0), ()).dtype == np.float32


@pytest.mark.parametrize("law", [Normal(0.3, 0.1), Normal(0.3, 0.1, 0.2, 0.5), Uniform(-0.2, 0.7), Constant(0.4)])
@pytest.mark.parametrize("scale, shift", [(2.0, 1.0), (-0.5, 3.0), (0.0, 1.5)])
def test_a_scaled_law_is_that_of_scaled_entries(law, scale, shift):
    rng = np.random.default_rng(60)
    ours = affine(law, scale, shift).draw(rng, (20_000,))
    theirs = scale * law.draw(rng, (20_000,)) + shift
    if law.constant or not scale:
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    else:
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > FALSE_ALARM


def test_clamping_is_simple_only_where_nothing_heaps_up():
    assert clamped(Normal(0.0, 0.02), -2, 2) == Normal(0.0, 0.02, -2, 2)
    assert clamped(Normal(0.0, 1.0), -2, 2) is None
    assert clamped(Normal(0.0, 1.0, -2, 2), -2, 2) == Normal(0.0, 1.0, -2, 2)
    assert clamped(Uniform(-1.0, 1.0), -1, 1) == Uniform(-1.0, 1.0)
    assert clamped(Uniform(-1.0, 1.0), -0.9, 1) is None
    assert clamped(Constant(3.0), -1, 1) == Constant(1.0)


def test_the_inverse_error_function_of_a_uniform_number_is_normal():
    law = inverse_erf(Uniform(-0.9, 0.5))
    theirs = scipy.special.erfinv(np.random.default_rng(1).uniform(-0.9, 0.5, 20_000))
    assert scipy.stats.ks_2samp(law.draw(np.random.default_rng(2), (20_000,)), theirs).pvalue > FALSE_ALARM
    assert inverse_erf(Normal(0.0, 1.0)) is None


def test_laws_without_width_are_constants():
    assert normal(2.0, 0.0) == uniform(2.0, 2.0) == fixed(np.full(3, 2.0)) == Constant(2.0)


@pytest.mark.parametrize(
    ("law", "text"),
    [
        (Normal(0.0, 0.02), "N(0, 0.02)"),
        (Uniform(-1 / 768**0.5, 1 / 768**0.5), "U(-0.0361, 0.0361)"),
        (Normal(0.0, 0.02, -2, 2), "truncated N(0, 0.02) in [-2, 2]"),
        (Constant(0.0), "0"),
        (fixed(np.arange(3.0)), "a fixed array"),
    ],
)
def test_names(law, text):
    assert str(law) == text
