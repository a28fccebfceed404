"""Threads of ours and of the BLAS."""

import os
import subprocess
import sys
import threading

import pytest

from raylab.spectral.parallel import in_threads


def in_two_threads_of_blas(code):
    """A process of its own, whose BLAS begins with two threads."""
    more = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | more)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_the_first_answer_of_a_process_is_that_of_the_others():
    """The BLAS that the first call loads has a single thread too."""
    in_two_threads_of_blas("""
import numpy
from raylab.spectral import measure, measure_many, resolve
from raylab.types import Layer, SpectralOptions
weights = numpy.random.default_rng(0).normal(size=(700, 600))
given = (resolve(["esd"]), SpectralOptions(device="cpu"))
layer = Layer("fc", 0, "linear", weights.shape)
first, *others = [measure(weights, layer, *given)["evals"] for _ in range(3)]
others += [measure_many([(weights, layer)], *given)[0]["evals"]]
assert all((other == first).all() for other in others)
""")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_who_leaves_early_changes_nothing_for_who_stays_and_the_last_puts_it_back():
    in_two_threads_of_blas("""
import numpy, scipy.linalg
from contextlib import ExitStack
from threadpoolctl import threadpool_info
from raylab.spectral.parallel import one_thread_of_blas
def threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
before, first, second = threads(), ExitStack(), ExitStack()
first.enter_context(one_thread_of_blas)
second.enter_context(one_thread_of_blas)
assert before == {2} and threads() == {1}
first.close()
assert threads() == {1}
second.close()
assert threads() == before
""")


def test_results_are_in_the_order_of_the_jobs_and_errors_are_those_of_the_work():
    assert in_threads(lambda job: job * 2, list(range(20)), 3) == list(range(0, 40, 2))
    assert in_threads(lambda job: threading.current_thread(), [1], 4) == [threading.main_thread()]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda job: 1 // job, [1, 0, 2], 2)
