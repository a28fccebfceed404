"""A question about one file, from a cold start: `raylab analyze FILE` against a script around weightwatcher 0.7.7.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OMP_NUM_THREADS=1 python -m benchmarks.cold_command

Each is a process of its own, CPU seconds of the whole process, interleaved, medians. The model is an FCN 784-512x5-10
in a safetensors file. Both print alpha of every layer; exit code 1 if they differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

PEER = """
import contextlib, io, json, logging, sys, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
import torch, weightwatcher
from safetensors.torch import load_file
state = load_file(sys.argv[1])
layers = [torch.nn.Linear(w.shape[1], w.shape[0], bias=False) for w in state.values()]
for layer, w in zip(layers, state.values()): layer.weight.data = w
with contextlib.redirect_stdout(io.StringIO()):
    details = weightwatcher.WeightWatcher(model=torch.nn.Sequential(*layers)).analyze(mp_fit=sys.argv[2] == "bulk")
print(json.dumps(details["alpha"].tolist()))
"""


def write_model(path: Path) -> None:
    """An FCN as torch initialises it."""
    rng = np.random.default_rng(0)
    widths = [784, 512, 512, 512, 512, 512, 10]
    shapes = [(b, a) for a, b in itertools.pairwise(widths)]
    bounds = [shape[1] ** -0.5 for shape in shapes]
    state = {f"fc{i}.weight": rng.uniform(-b, b, s) for i, (s, b) in enumerate(zip(shapes, bounds, strict=True))}
    save_file({name: weight.astype(np.float32) for name, weight in state.items()}, path)


def cpu_seconds(command: list[str]) -> tuple[float, list[float]]:
    """Of a process and its children, and the alphas that it prints."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(out[out.index("[") :])
    alphas = [row["alpha"] for row in found] if isinstance(found[0], dict) else found
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, alphas


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    agree = True
    print("| | weightwatcher, CPU s | raylab, CPU s | ratio | goal |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fcn.safetensors"
        write_model(path)
        for kind, metrics in (("alpha", "power_law,norms"), ("bulk", "standard,marchenko_pastur")):
            ours = [sys.executable, "-m", "raylab", "analyze", str(path), "--metrics", metrics, "--format", "json"]
            theirs = [sys.executable, "-c", PEER, str(path), kind]
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds):
                (a, x), (b, y) = cpu_seconds(ours), cpu_seconds(theirs)
                times[0].append(a)
                times[1].append(b)
                agree &= bool(np.allclose(x, y, rtol=1e-9, atol=0))
            ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
            title = "alpha and norms" if kind == "alpha" else "with the MP fit"
            medians = [statistics.median(each) for each in times]
            print(f"| {title} | {medians[1]:.2f} | {medians[0]:.3f} | **{ratio:.0f}** | 25 |", flush=True)
    if not agree:
        print("\nDISAGREE")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
