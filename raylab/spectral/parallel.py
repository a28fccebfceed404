"""Layers side by side: threads, each with one thread of the BLAS.

Over layers threads beat those inside the BLAS for every model that was tried, and the answer does not depend on their
number, which the last digits of a threaded sum do.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(work: Callable[[Job], Result], jobs: Sequence[Job], threads: int | None = None) -> list[Result]:
    """The result of every job, in their order. threads: None is one a core that this process may use."""
    threads = min(threads or cores(), max(len(jobs), 1))
    with _libraries(len(sys.modules)).limit(limits=1):
        if threads == 1:
            return [work(job) for job in jobs]
        with ThreadPoolExecutor(threads, initializer=one_thread_of_torch) as pool:
            return list(pool.map(work, jobs))


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """The BLAS libraries that are loaded, looked for again when more modules are than before: it takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread_of_torch() -> None:
    """For a thread that begins: torch keeps the number of its own threads for each thread that calls it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
