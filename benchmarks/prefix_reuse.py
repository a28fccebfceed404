"""What the reuse of activations saves: 12 evaluations of a trained-size FCN, from the cached boundary and naively.

python -m benchmarks.prefix_reuse [ROUNDS]

Six layers, two perturbations each, 10,000 inputs of MNIST's shape, one core; interleaved rounds, medians.
By operations alone the ratio cannot be below .553: each suffix twice, and every layer once more to advance. Also prints
what the similarity metrics cost on top of an evaluation.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from raylab.evaluate import Evaluation, PrefixWalk
from raylab.models.fcn import FCN
from raylab.perturb import perturbed
from raylab.similarity import SimilarityMeter

rng = np.random.default_rng(0)
MODEL = FCN(784, 10, depth=5, width=512)
MODEL.load(MODEL.initial_state(rng))
DRAWS = [MODEL.initial_state(rng) for _ in range(2)]
X = torch.from_numpy(rng.standard_normal((10_000, 784), dtype=np.float32))
Y = torch.from_numpy(rng.integers(0, 10, 10_000))


def conditions(layer: str) -> list[dict[str, np.ndarray]]:
    return [{p: draw[f"{layer}.{p}"] for p in ("weight", "bias")} for draw in DRAWS]


def reused() -> list[Evaluation]:
    walk, results = PrefixWalk(MODEL, X, Y), []
    for layer in MODEL.layer_names:
        walk.advance_to(MODEL.stage_of(layer))
        for arrays in conditions(layer):
            with perturbed(MODEL, layer, arrays):
                results.append(walk.evaluate())
    return results


def naive() -> list[Evaluation]:
    results = []
    for layer in MODEL.layer_names:
        for arrays in conditions(layer):
            with perturbed(MODEL, layer, arrays):
                results.append(PrefixWalk(MODEL, X, Y).evaluate())
    return results


def with_similarity() -> list[Evaluation]:
    walk, results = PrefixWalk(MODEL, X, Y), []
    for layer in MODEL.layer_names:
        walk.advance_to(MODEL.stage_of(layer))
        originals = list(walk.outputs(MODEL.get_submodule(layer)))
        for arrays in conditions(layer):
            meter = SimilarityMeter()
            with perturbed(MODEL, layer, arrays) as module:
                results.append(walk.evaluate((module, lambda k, z, m=meter, o=originals: m.update(o[k], z))))
            meter.result()
    return results


def seconds(function: Callable[[], list[Evaluation]]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    assert reused() == naive() == with_similarity(), "the answers differ"
    roads = {"naive": naive, "reused": reused, "reused, with similarity": with_similarity}
    times = {name: [] for name in roads}
    for _ in range(rounds):
        for name, road in roads.items():
            times[name].append(seconds(road))
    base = statistics.median(times["naive"])
    print(f"12 evaluations of 10,000 samples, FCN 784-512x5-10, {rounds} interleaved rounds, one core, equal results")
    for name, each in times.items():
        ratio = statistics.median(own / other for own, other in zip(each, times["naive"], strict=True))
        print(f"  {name:24} {statistics.median(each):6.3f} CPU s   {ratio:.2f} of naive")
    print(f"  one full pass {base / 12 * 1e3:.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
