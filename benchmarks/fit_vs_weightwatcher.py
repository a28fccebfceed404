"""The power-law fit alone: raylab against weightwatcher and powerlaw on the same eigenvalues, on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.fit_vs_weightwatcher

Rounds are interleaved in one process, CPU seconds are counted, the ratio is the median over the rounds. The samples are
random matrices (uniform, Student's t) and a pure power law, on which most candidates for xmin are nearly as good as the
best. Prints Markdown tables; exit code 1 if alpha, D or xmin of any two disagree by more than 1e-9.
"""

from __future__ import annotations

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import argparse
import contextlib
import io
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from raylab.spectral.power_law import fit_evals
from raylab.spectral.scan import centered_logs, least_distances, tail_alphas
from raylab.spectral.uncertainty import uncertainty
from raylab.types import Array, SpectralOptions, Spectrum

GOALS = {512: 8, 1280: 20, 5000: 50}
REPEATS = 20  # of ours in a round: one takes less than the clock's tick
POWERLAW_UP_TO = 1280  # it takes seconds beyond


def samples(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(n)
    uniform = rng.uniform(-1, 1, (n, n)) / np.sqrt(n)
    student = rng.standard_t(3, (n, n)) / np.sqrt(n)
    spectra = {name: np.linalg.eigvalsh(w.T @ w) for name, w in [("uniform", uniform), ("Student t3", student)]}
    spectra["power law"] = np.sort(rng.pareto(1.5, n) + 1)
    return {name: evals[evals > 1e-5] for name, evals in spectra.items()}


def cpu_seconds(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    start = time.process_time()
    for _ in range(repeats):
        result = work()
    return (time.process_time() - start) / repeats, result


def fits(evals: Array) -> dict[str, tuple[Callable[[], Any], int]]:
    """Who -> how it fits, and how often in a round."""
    import powerlaw
    from weightwatcher.WW_powerlaw import WWFit

    known: dict[str, tuple[Callable[[], Any], int]] = {
        "raylab": (lambda: fit_evals(evals), REPEATS),
        "weightwatcher": (lambda: WWFit(evals), 1),
    }
    if len(evals) <= POWERLAW_UP_TO:  # without the range its alpha is silently capped at 3
        known["powerlaw"] = (
            lambda: powerlaw.Fit(evals, parameter_ranges={"alpha": [1, None]}, verbose=False),
            1,
        )
    return known


def compared(evals: Array, rounds: int) -> tuple[dict[str, list[float]], float]:
    """CPU seconds of each round of each, after one that is not counted, and the largest relative difference."""
    todo = fits(evals)
    seconds: dict[str, list[float]] = {who: [] for who in todo}
    found = {}
    for i in range(rounds + 1):
        for who, (work, repeats) in list(todo.items())[:: 1 if i % 2 else -1]:
            taken, found[who] = cpu_seconds(work, repeats)
            seconds[who] += [taken] if i else []
    values = {who: np.array([fit.alpha, fit.D, fit.xmin]) for who, fit in found.items()}
    ours = values.pop("raylab")
    return seconds, max(float(np.max(np.abs(ours / theirs - 1))) for theirs in values.values())


def print_fits(rounds: int) -> bool:
    print(
        "| n | eigenvalues of | weightwatcher, ms | powerlaw, ms | raylab, ms | ratio (median; least) | goal | apart |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    agreed = True
    for n, goal in GOALS.items():
        for name, evals in samples(n).items():
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                seconds, difference = compared(evals, rounds)
            agreed &= difference <= 1e-9
            ms = {who: f"{1e3 * statistics.median(taken):.3g}" for who, taken in seconds.items()}
            ratios = [a / b for a, b in zip(seconds["weightwatcher"], seconds["raylab"], strict=True)]
            print(
                f"| {n} | {name} | {ms['weightwatcher']} | {ms.get('powerlaw', '-')} | {ms['raylab']} "
                f"| {statistics.median(ratios):.0f}; {min(ratios):.0f} | {goal} | {difference:.0e} |"
            )
    return agreed


def print_many(rounds: int) -> None:
    print("\n| eigenvalues | 200 resampled fits, rows together, ms | one by one, ms | `uncertainty` (400 refits), ms |")
    print("|---:|---:|---:|---:|")
    for n in GOALS:
        evals = samples(n)["power law"]
        rows = np.sort(np.random.default_rng(0).choice(evals, (200, n)), axis=1)
        one = Spectrum(evals=evals, N=n, M=n, options=SpectralOptions(device="cpu"))

        def together(rows: Array = rows) -> Any:
            logs = centered_logs(rows)
            return least_distances(logs, tail_alphas(logs))

        def each(rows: Array = rows) -> Any:
            return [fit_evals(row) for row in rows]

        columns = (together, each, lambda one=one: uncertainty(one))
        ms = [1e3 * statistics.median(cpu_seconds(work)[0] for _ in range(rounds)) for work in columns]
        print(f"| {n} | {ms[0]:.0f} | {ms[1]:.0f} | {ms[2]:.0f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    logging.disable(logging.CRITICAL)
    agreed = print_fits(rounds)
    print_many(rounds)
    if not agreed:
        print("\nThe fits disagree by more than 1e-9.", file=sys.stderr)
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
