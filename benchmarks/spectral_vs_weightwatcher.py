"""raylab against weightwatcher on one core: the same numbers, how much sooner?

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OMP_NUM_THREADS=1 python -m benchmarks.spectral_vs_weightwatcher

Rounds are interleaved in one process, CPU seconds are counted, the ratio is the median over the rounds. Prints a
Markdown table; exit code 1 if the two disagree.
"""

from __future__ import annotations

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # weightwatcher reads weights as float16 where it sees CUDA

import argparse
import contextlib
import io
import itertools
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import threadpoolctl
import torch

import raylab
from raylab.types import SpectralOptions

# Our column, the oracle's, relative tolerance. The simplex descent of the MP fit ends within 1e-4.
EXACT = [
    ("alpha", "alpha", 1e-9),
    ("D", "D", 1e-9),
    ("xmin", "xmin", 1e-9),
    ("sigma", "sigma", 1e-9),
    ("num_tail", "num_pl_spikes", 0),
    ("alpha_hat", "alpha_weighted", 1e-9),
    ("log_alpha_norm", "log_alpha_norm", 1e-9),
    ("log_norm", "log_norm", 1e-9),
    ("spectral_norm", "spectral_norm", 1e-9),
    ("stable_rank", "stable_rank", 1e-9),
    ("entropy", "entropy", 1e-9),
    ("matrix_rank", "matrix_rank", 0),
]
BULK = [("mp_softrank", "mp_softrank", 1e-4), ("mp_sigma", "sigma_mp", 1e-4), ("num_spikes", "num_spikes", 0)]


def fcn() -> torch.nn.Module:
    """784-512x5-10, as it is initialised."""
    torch.manual_seed(0)
    widths = [784, 512, 512, 512, 512, 512, 10]
    return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)))


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def interleaved(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of each round, after one that is not counted. Each side goes first every other round."""
    ours()
    theirs()
    a: list[float] = []
    b: list[float] = []
    for i in range(rounds):
        pair = [(a, ours), (b, theirs)]
        for times, work in pair if i % 2 == 0 else reversed(pair):
            times.append(cpu_seconds(work)[0])
    return a, b


def largest_disagreement(
    table: Any, details: Any, columns: Sequence[tuple[str, str, float]]
) -> tuple[float, list[str]]:
    """The largest relative difference, and the columns that exceed their tolerance."""
    worst, wrong = 0.0, []
    for ours, theirs, tolerance in columns:
        x, y = np.array(table[ours].to_pylist(), float), details[theirs].to_numpy(float)
        difference = float(np.max(np.abs(x - y) / np.maximum(np.abs(y), 1e-300)))
        worst = max(worst, difference)
        if not difference <= tolerance:
            wrong.append(f"{ours} ({difference:.1e})")
    return worst, wrong


def cases(model: torch.nn.Module) -> dict[str, tuple[Callable[[], Any], Callable[[], Any], list[Any], float]]:
    """Name -> ours, theirs, what must agree, the ratio that must be reached."""
    import weightwatcher

    options = SpectralOptions(device="cpu")

    def theirs(mp_fit: bool) -> Callable[[], Any]:
        def analyze() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints for every layer below 20 eigenvalues
                return weightwatcher.WeightWatcher(model=model).analyze(randomize=False, mp_fit=mp_fit, plot=False)

        return analyze

    def ours(*metrics: str) -> Callable[[], Any]:
        return lambda: raylab.analyze(model, metrics, options)

    return {
        "everything Figure 3 needs, MP fit included": (
            ours("standard", "marchenko_pastur"),
            theirs(mp_fit=True),
            EXACT + BULK,
            40.0,
        ),
        "alpha and norms": (ours("power_law", "norms"), theirs(mp_fit=False), EXACT, 3.0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    todo = cases(fcn())
    kernels = {
        f"{pool['internal_api']} {pool.get('architecture') or ''}".strip() for pool in threadpoolctl.threadpool_info()
    }
    print(f"FCN 784-512x5-10, one core, {rounds} interleaved rounds, {', '.join(sorted(kernels))}\n")
    print("| what | weightwatcher, CPU s | raylab, CPU s | ratio (median; least) | goal | largest difference |")
    print("|---|---|---|---|---|---|")
    disagreements: list[str] = []
    with threadpoolctl.threadpool_limits(1):
        for name, (ours, theirs, columns, goal) in todo.items():
            a, b = interleaved(ours, theirs, rounds)
            ratios = [y / x for x, y in zip(a, b, strict=True)]
            worst, wrong = largest_disagreement(ours(), theirs(), columns)
            disagreements += wrong
            print(
                f"| {name} | {statistics.median(b):.3f} | {statistics.median(a):.4f} | "
                f"{statistics.median(ratios):.2f}; {min(ratios):.2f} | {goal:g} | {worst:.1e} |"
            )
    if disagreements:
        print(f"\nDISAGREE: {', '.join(disagreements)}")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
