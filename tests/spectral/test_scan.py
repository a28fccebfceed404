import math

import numpy as np
import pytest

from raylab.spectral import fit_evals
from raylab.spectral.scan import centered_logs, distance, least_distance, least_distances, tail_alphas
from raylab.types import SpectralOptions

STANDARD = SpectralOptions(small_sample="standard", threshold=0.0)


def every_tail(points):
    """Every candidate in full: alpha, D and index of the first least D."""
    logs = centered_logs(points)
    alphas = tail_alphas(logs)
    Ds = [distance(logs, i, alpha)[0] if math.isfinite(alpha) else math.inf for i, alpha in enumerate(alphas)]
    start = int(np.argmin(Ds))
    return (alphas[start], Ds[start], start) if math.isfinite(Ds[start]) else None


def sample(seed):
    """Points of several laws and lengths; a third of the samples are resampled, so that they have ties."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 400))
    laws = (
        lambda: rng.pareto(0.5 + rng.random() * 4, n) + 1,
        lambda: rng.exponential(size=n) + 1e-4,
        lambda: rng.lognormal(size=n),
        lambda: rng.uniform(1, 1 + 10.0 ** rng.integers(-6, 3), n),
        lambda: rng.integers(1, 6, n).astype(float),
    )
    points = laws[seed % 5]()
    return np.sort(rng.choice(points, n) if seed % 3 == 0 else points)


@pytest.mark.parametrize("seed", range(300))
def test_what_is_dropped_could_not_have_won(seed):
    points = sample(seed)
    logs = centered_logs(points)
    assert least_distance(logs, tail_alphas(logs)) == every_tail(points)


@pytest.mark.parametrize("seed", range(40))
def test_rows_together_are_rows_one_by_one(seed):
    rng = np.random.default_rng(seed)
    points = sample(seed)
    rows = np.sort(rng.choice(points, (12, len(points))), axis=1)
    rows[3] = 2.0  # no tail at all
    logs = centered_logs(rows)
    found = least_distances(logs, tail_alphas(logs))
    for i, row in enumerate(rows):
        one = every_tail(row) or (math.nan, math.nan, len(row))
        assert (found.alpha[i], found.D[i], found.start[i]) == pytest.approx(one, rel=0, abs=0, nan_ok=True)
        fit = fit_evals(row, STANDARD)
        if fit.status == "ok":
            assert (found.alpha[i], found.D[i], row[found.start[i]]) == (fit.alpha, fit.D, fit.xmin)


def test_more_rows_than_are_scanned_at_once():
    rows = np.sort(np.random.default_rng(0).pareto(2, (150, 500)) + 1, axis=1)
    logs = centered_logs(rows)
    found = least_distances(logs, tail_alphas(logs))
    singles = [least_distance(row, alphas) for row, alphas in zip(logs, tail_alphas(logs), strict=True)]
    np.testing.assert_array_equal(np.stack(found), np.array(singles).T)


def test_a_sample_of_ties_has_no_tail():
    logs = centered_logs(np.full(5, 3.0))
    assert least_distance(logs, tail_alphas(logs)) is None
