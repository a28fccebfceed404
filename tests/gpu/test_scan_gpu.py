"""Many fits at once on a GPU: those of the CPU."""

import numpy as np
import pytest

from raylab.spectral import backend
from raylab.spectral.scan import centered_logs, least_distances, tail_alphas

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("size", [50, 512, 1280])
def test_rows_on_a_gpu_are_rows_on_a_core(size):
    if not backend.available("cupy"):
        pytest.skip("CuPy sees no GPU here")
    import cupy

    rows = np.sort(np.random.default_rng(size).pareto(2, (200, size)) + 1, axis=1)
    logs = centered_logs(rows)
    expected = least_distances(logs, tail_alphas(logs))
    there = centered_logs(cupy.asarray(rows), cupy)
    found = [column.get() for column in least_distances(there, tail_alphas(there, xp=cupy), cupy)]
    np.testing.assert_array_equal(found[2], expected.start)
    np.testing.assert_allclose(found[0], expected.alpha, rtol=1e-11)
    np.testing.assert_allclose(found[1], expected.D, rtol=0, atol=1e-12)
