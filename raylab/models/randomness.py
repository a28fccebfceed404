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
def private_randomness(seed: int, gpu: int | None = None) -> Iterator[None]:
    """The global generators of torch, numpy and Python, seeded; put back as they were.

    gpu: the one whose generator is lent too; others are not touched.
    """
    import torch

    python, legacy = random.getstate(), np.random.get_state()  # those of libraries that ask neither torch nor us
    with torch.random.fork_rng(devices=[] if gpu is None else [gpu]):
        torch.default_generator.manual_seed(seed)
        if gpu is not None:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
