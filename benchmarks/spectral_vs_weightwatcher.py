"""raylab against weightwatcher 0.7.7 on whole models: the same numbers, how much sooner, and how near to the floor?

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OMP_NUM_THREADS=1 python -m benchmarks.spectral_vs_weightwatcher

Rounds are interleaved in one process, the peer is imported before the first, and the ratio is the median over the
rounds. With one core, CPU seconds are counted; with --cores 2, wall seconds (on a quiet machine) of two of our threads
against two threads of the peer's BLAS. The floor is the Gram matrices and their eigenvalues alone. Random weights.
Prints a Markdown table; exit code 1 if the two disagree anywhere.
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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import threadpoolctl
import torch

import raylab
from raylab.layers import as_matrices, find_layers, split_by_size, weights
from raylab.spectral import lapack
from raylab.types import SpectralOptions

PARITY = {"device": "cpu", "min_evals": 8, "max_evals": 15_000, "max_N": 50_000}
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
# What must be reached, by model: alpha and norms on one core, on two, in float32, with the Marchenko-Pastur fit.
GOALS = {
    "fcn": {"alpha": 3, "bulk": 40},
    "resnet34": {"alpha": 3, "bulk": 50},
    "vit_b_16": {"alpha": 4},
    "gpt2": {"alpha": 4, "cores": 6.8, "float32": 6, "bulk": 12},
    "gpt2_large": {"alpha": 4.6},
}


def build(name: str) -> torch.nn.Module:
    """A model with random weights."""
    torch.manual_seed(0)
    if name == "fcn":
        widths = [784, 512, 512, 512, 512, 512, 10]
        return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)))
    if name.startswith("gpt2"):
        import transformers

        large = {"n_layer": 36, "n_embd": 1280, "n_head": 20} if name == "gpt2_large" else {}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**large)).eval()
    import torchvision

    model = torchvision.models.get_model(name, weights=None)
    if hasattr(model, "heads"):
        torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # a vision transformer's is zero: there is no fit
    return model


def ours(model: Any, layers: Sequence[str], metrics: Sequence[str], dtype: str, cores: int) -> Callable[[], Any]:
    options = SpectralOptions(dtype=dtype, **PARITY)
    return lambda: raylab.analyze(model, metrics, options, layers, threads=cores)


def theirs(model: Any, mp_fit: bool) -> Callable[[], Any]:
    import weightwatcher

    def analyze() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints for every layer below 20 eigenvalues
            return weightwatcher.WeightWatcher(model=model).analyze(randomize=False, mp_fit=mp_fit, plot=False)

    return analyze


def floor(model: Any, layers: Sequence[str]) -> Callable[[], None]:
    """Gram matrices and eigenvalues of the same matrices, and nothing else."""
    tensors = weights(model)
    chosen = [layer for layer in find_layers(model)[0] if layer.name in set(layers)]
    stacks = [as_matrices(tensors[layer.name].detach().numpy(), layer) for layer in chosen]

    def solve() -> None:
        for matrix in itertools.chain.from_iterable(stacks):
            lapack.sterf(*lapack.tridiagonal(lapack.gram(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T)))

    return solve


def common_layers(model: Any, details: Any) -> list[str]:
    """What both measure: the peer counts tied weights twice and leaves out what is not the weight of a module."""
    fitting, _ = split_by_size(find_layers(model)[0], SpectralOptions(**PARITY))
    both = {layer.name for layer in fitting} & set(details["longname"])
    return [layer.name for layer in fitting if layer.name in both]


def interleaved(works: Sequence[Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds of each work in each round; the order turns from round to round."""
    seconds: list[list[float]] = [[] for _ in works]
    for i in range(rounds):
        order = list(enumerate(works))
        for at, work in order[i % len(order) :] + order[: i % len(order)]:
            start = clock()
            work()
            seconds[at].append(clock() - start)
    return seconds


def largest_disagreement(
    table: Any, details: Any, columns: Sequence[tuple[str, str, float]]
) -> tuple[float, list[str]]:
    """The largest relative difference, and the columns that exceed their tolerance."""
    worst, wrong = 0.0, []
    details = details.set_index("longname").loc[table["layer"].to_pylist()]
    for ours, theirs, tolerance in columns:
        x, y = np.array(table[ours].to_pylist(), float), details[theirs].to_numpy(float)
        difference = float(np.max(np.abs(x - y) / np.maximum(np.abs(y), 1e-300)))
        worst = max(worst, difference)
        if not difference <= tolerance:
            wrong.append(f"{ours} ({difference:.1e})")
    return worst, wrong


def cases(name: str, chosen: Sequence[str]) -> Iterator[tuple[str, str, bool, str, int]]:
    """Kind, title, with the MP fit, dtype, cores."""
    known = {
        "alpha": ("alpha and norms", False, "float64", 1),
        "cores": ("alpha and norms, two cores", False, "float64", 2),
        "float32": ("alpha and norms, float32", False, "float32", 1),
        "bulk": ("with the MP fit", True, "float64", 1),
    }
    for kind, (title, mp_fit, dtype, cores) in known.items():
        if kind in chosen:
            yield kind, f"{name}: {title}", mp_fit, dtype, cores


def measure(
    model: Any, kind: str, mp_fit: bool, dtype: str, cores: int, rounds: int
) -> tuple[list[list[float]], float, list[str]]:
    """Seconds of theirs, ours and (in float64 on one core) the floor; the largest difference; what disagrees."""
    torch.set_num_threads(cores)
    with threadpoolctl.threadpool_limits(cores):
        peer = theirs(model, mp_fit)
        details = peer()
        layers = common_layers(model, details)
        metrics = ("power_law", "norms", *(["marchenko_pastur"] if mp_fit else []))
        mine = ours(model, layers, metrics, dtype, cores)
        columns = EXACT + (BULK if mp_fit else [])
        if dtype == "float32":
            columns = [("alpha", "alpha", 5e-4)]
        worst, wrong = largest_disagreement(mine(), details, columns)
        works = [peer, mine, *([floor(model, layers)] if dtype == "float64" and cores == 1 else [])]
        seconds = interleaved(works, rounds, time.process_time if cores == 1 else time.perf_counter)
    return seconds, worst, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=list(GOALS), default=["fcn", "resnet34", "gpt2"])
    parser.add_argument("--kinds", nargs="+", choices=["alpha", "cores", "float32", "bulk"], default=["alpha", "bulk"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    print("| | weightwatcher, s | raylab, s | ratio (least) | goal | over the floor | largest difference |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    disagreements: list[str] = []
    for name in arguments.models:
        model = build(name)
        for kind, title, mp_fit, dtype, cores in cases(name, arguments.kinds):
            seconds, worst, wrong = measure(model, kind, mp_fit, dtype, cores, arguments.rounds)
            disagreements += [f"{title}: {column}" for column in wrong]
            ratios = [a / b for a, b in zip(*seconds[:2], strict=True)]
            above = [b / c for b, c in zip(*seconds[1:], strict=True)] if len(seconds) == 3 else []
            print(
                f"| {title} | {statistics.median(seconds[0]):.3g} | {statistics.median(seconds[1]):.3g} | "
                f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f}) | {GOALS[name].get(kind, '')} | "
                f"{f'{statistics.median(above):.2f}' if above else ''} | {worst:.0e} |",
                flush=True,
            )
    if disagreements:
        print(f"\nDISAGREE: {'; '.join(disagreements)}")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
