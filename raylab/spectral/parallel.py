"""Layers side by side: threads, each with one thread of the BLAS.

Over layers threads beat those inside the BLAS for every model that was tried, and the answer does not depend on their
number, which the last digits of a threaded sum do.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Job = TypeVar("Job")
Result = TypeVar("Result")


class _OneThread:
    """One thread for every BLAS while somebody is inside; when the last has left, as many as before.

    Their number belongs to the process. Threads that each put it back by themselves would put it back for the others
    too, in the midst of their work, or leave it at one for ever.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._inside = 0
        self._modules = 0
        self._limits = ExitStack()

    def __enter__(self) -> None:
        with self._door:
            if not self._inside or self._modules != len(sys.modules):  # a BLAS may have been loaded since
                self._modules = len(sys.modules)
                self._limits.enter_context(_libraries(self._modules).limit(limits=1))
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._door:
            self._inside -= 1
            if not self._inside:
                self._limits.close()


one_thread_of_blas = _OneThread()


def in_threads(work: Callable[[Job], Result], jobs: Sequence[Job], threads: int | None = None) -> list[Result]:
    """The result of every job, in their order. threads: None is one a core that this process may use."""
    threads = min(threads or cores(), max(len(jobs), 1))
    with one_thread_of_blas:
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
