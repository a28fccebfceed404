"""Building models with random numbers of our own: the generators of the process are put back as they were."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np

# The generators, the filters of warnings and torch's default dtype belong to the process. Reentrant: what builds a
# model may call on raylab to build one.
one_at_a_time = threading.RLock()


@contextlib.contextmanager
def private_randomness(seed: int) -> Iterator[None]:
    """The global generators of torch (CPU), numpy and Python, seeded; put back as they were. GPUs are not touched."""
    import torch

    python, legacy = random.getstate(), np.random.get_state()  # those of libraries that ask neither torch nor us
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
