"""A perturbation that takes more memory than there is, for a few of the trials: what benchmarks.faults tries."""

from __future__ import annotations

import time

import numpy as np

from raylab.types import Array, LayerWeights

RARE = 0.02  # of calls
STEP = 200 * 1024**2  # bytes
MOST = 80  # steps


def greedy(weights: LayerWeights, rng: np.random.Generator) -> Array:
    """The trained tensor as it is; now and then, after taking 200 MB after the other."""
    if rng.random() < RARE:
        taken = []
        for _ in range(MOST):
            taken.append(np.ones(STEP, np.uint8))
            time.sleep(0.1)
    return weights.trained
