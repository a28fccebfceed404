"""No cluster: the same stream of results from this process, for a debugger, small work and machines without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from raylab.cluster.outcomes import measured, outcomes_of
from raylab.spectral.parallel import one_thread_of_blas, one_thread_of_torch
from raylab.types import Experiment, Group, Trial, TrialResult

OUTCOMES_AT_ONCE = 16  # measured together: a GPU solves equal shapes in one call
TICK_SECONDS = 0.5  # at most so long between two looks at the clock, the sink and Ctrl-C


def stream(experiment: Experiment, pending: Sequence[Trial]) -> Iterator[list[TrialResult]]:
    """Results in the order of the experiment's groups."""
    with one_thread_of_blas:  # as on a worker: the last digits of a sum depend on the number of threads
        try:
            for group in experiment.groups(pending):
                yield from _results(experiment, group)
        finally:  # a worker of a cluster ends by itself; this process goes on
            experiment.release()


def stream_in_threads(experiment: Experiment, pending: Sequence[Trial], threads: int) -> Iterator[list[TrialResult]]:
    """Results in finish order, groups side by side; an empty list now and then, so that the caller can look around."""
    waiting = iter(experiment.groups(pending))
    with one_thread_of_blas:
        pool = ThreadPoolExecutor(threads, initializer=one_thread_of_torch)
        flights: set[Future[list[TrialResult]]] = set()
        try:
            while True:
                flights |= {
                    pool.submit(_finished, experiment, group) for group in islice(waiting, threads - len(flights))
                }
                if not flights:
                    return
                done, flights = wait(flights, TICK_SECONDS, FIRST_COMPLETED)
                yield [result for future in done for result in future.result()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _finished(experiment: Experiment, group: Group) -> list[TrialResult]:
    return [result for batch in _results(experiment, group) for result in batch]


def _results(experiment: Experiment, group: Group) -> Iterator[list[TrialResult]]:
    outcomes = outcomes_of(experiment, group)
    while batch := list(islice(outcomes, OUTCOMES_AT_ONCE)):
        yield measured(experiment.measure, batch)
