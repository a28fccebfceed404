import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from raylab.similarity import Similarity, SimilarityMeter


def compare(a, b, batch: int = 64) -> Similarity:
    meter = SimilarityMeter()
    a, b = (torch.as_tensor(np.asarray(x, dtype=np.float32)) for x in (a, b))
    for x, y in zip(a.split(batch), b.split(batch), strict=True):
        meter.update(x, y)
    return meter.result()


def outputs(seed: int, samples: int = 300, units: int = 17, offset: float = 0.0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((samples, units)) @ rng.standard_normal((units, units)) + offset
    return a, 0.7 * a + rng.standard_normal((samples, units)) + offset


def direct_cka(a, b) -> float:
    """Kornblith et al. 2019, equation 2 and the definition of HSIC, from the centred Gram matrices of the samples."""
    H = np.eye(len(a)) - 1 / len(a)
    K, L = H @ (a @ a.T) @ H, H @ (b @ b.T) @ H
    return np.trace(K @ L) / math.sqrt(np.trace(K @ K) * np.trace(L @ L))


@pytest.mark.parametrize("batch", [1, 64, 128, 300])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_against_brute_force(batch, offset):
    a, b = outputs(1, offset=offset)
    a, b = a.astype(np.float32).astype(float), b.astype(np.float32).astype(float)
    result = compare(a, b, batch)
    js = [jensenshannon(p, q) ** 2 for p, q in zip(softmax(a, 1), softmax(b, 1), strict=True)]
    assert result.activation_disagreement == ((a > 0) != (b > 0)).mean()
    assert result.js_divergence == pytest.approx(np.mean(js), rel=2e-5)
    assert result.linear_cka == pytest.approx(direct_cka(a, b), rel=2e-5)


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 9))
def test_bounds_and_symmetry(seed, samples, units):
    a, b = outputs(seed, samples, units)
    ab, ba = compare(a, b), compare(b, a)
    assert 0 <= ab.activation_disagreement <= 1
    assert 0 <= ab.js_divergence <= math.log(2) + 1e-6
    assert -1e-5 <= ab.linear_cka <= 1 + 1e-5
    assert ab.activation_disagreement == ba.activation_disagreement
    assert ab.js_divergence == pytest.approx(ba.js_divergence, abs=1e-7)
    assert ab.linear_cka == pytest.approx(ba.linear_cka, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_an_output_against_itself(seed):
    a, _ = outputs(seed)
    result = compare(a, a)
    assert result.activation_disagreement == 0
    assert 0 <= result.js_divergence < 1e-8
    assert result.linear_cka == pytest.approx(1, abs=1e-6)


def test_what_each_metric_does_not_see():
    a, _ = outputs(3)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((17, 17)))
    assert compare(a, 3 * a @ rotation + 5).linear_cka == pytest.approx(1, abs=1e-5)
    assert compare(a, 3 * a).activation_disagreement == 0
    assert compare(a, a + 9).js_divergence == pytest.approx(0, abs=1e-6)


def test_distributions_without_overlap_are_ln_2_apart():
    a, b = np.full((4, 3), -1000.0), np.full((4, 3), -1000.0)
    a[:, 0], b[:, 1] = 1000, 1000
    assert compare(a, b).js_divergence == pytest.approx(math.log(2), rel=1e-6)


def test_zero_is_off():
    assert compare([[0.0, 0.0], [1.0, -1.0]], [[1.0, -1.0], [1.0, 0.0]]).activation_disagreement == 0.25


def test_an_output_that_never_varies_has_no_cka():
    a, _ = outputs(4)
    result = compare(a, np.ones_like(a))
    assert math.isnan(result.linear_cka)
    assert result.js_divergence > 0


def test_outputs_that_are_not_finite_give_nan_not_a_crash():
    a, b = outputs(5)
    b[3, 2] = np.nan
    result = compare(a, b)
    assert math.isnan(result.js_divergence) and math.isnan(result.linear_cka)


def test_positions_of_images_and_tokens_of_texts_are_samples():
    rng = np.random.default_rng(6)
    images, others = rng.standard_normal((2, 10, 5, 3, 4))  # channels 5
    rows = [x.transpose(0, 2, 3, 1).reshape(-1, 5) for x in (images, others)]
    assert compare(images, others, 10) == compare(*rows, batch=120)
    texts = [row.reshape(10, 12, 5) for row in rows]
    assert compare(*texts, batch=10) == compare(*rows, batch=120)


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="no outputs"):
        SimilarityMeter().result()
    with pytest.raises(ValueError, match="different shapes"):
        SimilarityMeter().update(torch.zeros(2, 3), torch.zeros(2, 4))
