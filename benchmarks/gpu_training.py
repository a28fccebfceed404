"""Models a second: a stack of FCNs 784-512x5-10 trained together on a GPU, against one after the other on a CPU core.

python -m benchmarks.gpu_training [--models 100] [--epochs 12] [--cpu-epochs 1]

Data of MNIST's shape (60,000 x 784, ten classes) are made up, so that only torch and numpy are needed. The CPU time is
measured over --cpu-epochs and scaled to --epochs. Checks that both roads agree before it times them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from raylab.data import ClassificationData
from raylab.models.fcn import FCN
from raylab.train import State, train, train_stacked
from raylab.types import Recipe

MODEL = FCN(784, 10, depth=5, width=512)


def made_up_data(seed: int = 0) -> ClassificationData:
    """Ten prototypes under noise: learnable, but not at once."""
    rng = np.random.default_rng(seed)
    prototypes = rng.standard_normal((10, 784), dtype=np.float32)

    def samples(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, 10, n)
        return 0.15 * prototypes[y] + rng.standard_normal((n, 784), dtype=np.float32), y

    (train_x, train_y), (test_x, test_y) = samples(60_000), samples(10_000)
    return ClassificationData("made-up", train_x, train_y, test_x, test_y, 10, (28, 28), f"seed {seed}")


def initial(k: int) -> State:
    return MODEL.initial_state(np.random.default_rng([1, k]))


def shuffle(k: int) -> np.random.Generator:
    return np.random.default_rng([2, k])


def accuracy(state: State, data: ClassificationData) -> float:
    with torch.no_grad():
        guess = MODEL.load(state)(torch.from_numpy(data.test_x)).argmax(1).numpy()
    return float((guess == data.test_y).mean())


def stacked(models: int, data: ClassificationData, recipe: Recipe) -> tuple[list[State], float]:
    """The trained models and the wall seconds it took, transfers and shuffling included."""
    initials, rngs = [initial(k) for k in range(models)], [shuffle(k) for k in range(models)]
    torch.cuda.synchronize()
    start = time.perf_counter()
    states = train_stacked(initials, data, recipe, rngs, "cuda")
    return [state for state in states if not isinstance(state, Exception)], time.perf_counter() - start


def on_a_core(data: ClassificationData, recipe: Recipe) -> tuple[State, float]:
    start = time.process_time()
    state = train(initial(0), data, recipe, shuffle(0))
    return state, time.process_time() - start


def main(models: int, epochs: int, cpu_epochs: int) -> None:
    data, recipe = made_up_data(), Recipe(epochs=epochs)
    short = replace(recipe, epochs=cpu_epochs)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {models} models, {epochs} epochs")
    cpu_state, cpu = on_a_core(data, short)
    cpu *= epochs / cpu_epochs
    print(f"one CPU core         {cpu:8.1f} s a model       {1 / cpu:8.4f} models/s   (from {cpu_epochs} epochs)")
    gpu_states, _ = stacked(2, data, short)  # also warms the device up
    apart = max(np.abs(gpu_states[0][name] - cpu_state[name]).max() for name in cpu_state)
    print(f"largest difference of a weight between the two after {cpu_epochs} epochs: {apart:.1e}")
    for precision in ("ieee", "tf32"):
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.cuda.reset_peak_memory_stats()
        states, seconds = stacked(models, data, recipe)
        mean = np.mean([accuracy(state, data) for state in states[:5]])
        print(
            f"GPU, float32 {precision:7} {seconds:8.1f} s for {models:3} models {models / seconds:8.4f} models/s   "
            f"{models / seconds * cpu:7.1f} cores   peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB   "
            f"accuracy of 5: {mean:.4f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--cpu-epochs", type=int, default=1)
    options = parser.parse_args()
    main(options.models, options.epochs, options.cpu_epochs)
