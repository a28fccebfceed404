"""The whole fcn_mnist experiment on one GPU, without Ray: train a stack, perturb, evaluate, measure.

    python -m benchmarks.gpu_experiment FOLDER [--models 100]

FOLDER holds MNIST/raw. Needs torch, numpy, scipy and, for the eigenvalues, CuPy; no Ray, Hydra or Arrow. Prints the
seconds of each phase and the means of the trained layers' alpha, to hold against analysis/fcn_mnist.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice

import numpy as np
import torch

from raylab import experiments
from raylab.cluster import inline
from raylab.config import Config
from raylab.types import ORIGINAL, Recipe, SpectralOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--models", type=int, default=100)
    options = parser.parse_args()
    config = Config(
        name="fcn_mnist",
        results=tempfile.mkdtemp(),
        models=options.models,
        stack=options.models,
        model={"_target_": "raylab.models.fcn.FCN", "depth": 5, "width": 512},
        data={"_target_": "raylab.data.mnist.load", "root": options.root},
        train=Recipe(),
        batch_size=10_000,
        perturbations=["original", "reinit", "rerandomize", "reinit_signs"],
        spectral=SpectralOptions(small_sample="standard"),
    )
    experiment = experiments.build(config)
    start = time.perf_counter()
    (group,) = experiment.groups(experiment.trials())
    outcomes = iter(experiment.run(group))
    first = next(outcomes)
    trained = time.perf_counter()
    results, evaluating, measuring = [first.result], 0.0, 0.0
    while True:
        begin = time.perf_counter()
        batch = list(islice(outcomes, inline.OUTCOMES_AT_ONCE))
        middle = time.perf_counter()
        if not batch:
            break
        results += experiment.measure(batch)
        evaluating += middle - begin
        measuring += time.perf_counter() - middle
    print(f"{torch.cuda.get_device_name()}: {options.models} models, {len(results):,} trials")
    print(f"training {trained - start:.1f} s, evaluation {evaluating:.1f} s, spectra and fits {measuring:.1f} s")
    print(f"failed: {sum(result.status != 'ok' for result in results)}")
    accuracy = [r.values["accuracy"] for r in results if r.trial.layer is None]
    print(f"accuracy {100 * np.mean(accuracy):.2f} +- {100 * np.std(accuracy, ddof=1) / len(accuracy) ** 0.5:.2f} %")
    for layer in experiment.layers:
        alpha = [r.values["alpha"] for r in results if (r.trial.layer, r.trial.perturbation) == (layer.name, ORIGINAL)]
        print(f"alpha {layer.name} {np.mean(alpha):.3f} +- {np.std(alpha, ddof=1) / len(alpha) ** 0.5:.3f}")


if __name__ == "__main__":
    main()
