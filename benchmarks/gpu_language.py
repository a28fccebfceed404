"""A GPT-2 at real size on this machine's GPU (or, slowly, its CPU): tokens/s, FLOP/s against gemm, a whole sweep.

python -m benchmarks.gpu_language [--layers 36 --width 1280 --heads 20] [--precision bfloat16] [--batch 8]

Random weights and tokens; needs neither Ray nor Hydra. Prints the rate of whole passes, what a pass from the middle
costs, what it costs to draw a layer's weights and bring them to the device, and the time of all spectra of a block; and
from these the time of a whole sweep: every layer, ten draws, each from the last cut below it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from raylab import spectral
from raylab.evaluate import PrefixWalk
from raylab.layers import find_layers, weights
from raylab.models.initial_laws import laws_of
from raylab.models.networks import Network, open_network
from raylab.perturb import perturbed
from raylab.types import SpectralOptions

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DRAWS = 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def clock(work: Callable[[], Any], repeat: int = 3) -> float:
    """The shortest of some times, seconds, the device waited for."""
    best = float("inf")
    for _ in range(repeat):
        wait()
        start = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def gemm_rate(dtype: torch.dtype, tokens: int, width: int) -> float:
    """FLOP/s of the product that a block spends most on, as fast as the device does it."""
    a = torch.randn(tokens, width, device=DEVICE).to(dtype)
    b = torch.randn(width, 4 * width, device=DEVICE).to(dtype)
    times = 20 if DEVICE == "cuda" else 1
    return times * 2 * tokens * width * 4 * width / clock(lambda: [a @ b for _ in range(times)])


def flops_per_token(network: Network, context: int) -> float:
    """Multiply-adds twice: the matrices (the embedding once, as the head), and attention over half of the context."""
    config = network.skeleton.config
    matrices = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    return 2 * matrices + 2 * config.n_layer * config.n_embd * context


def spectra_of_a_block(network: Network) -> float:
    """Seconds for all default metrics of the matrices of one block, on this device."""
    options = SpectralOptions(max_evals=None)
    module = network.module()
    layers = [layer for layer in find_layers(module)[0] if ".h.0." in f".{layer.name}."]
    tensors = weights(module)
    items = [(tensors[layer.name].numpy(), layer) for layer in layers]
    metrics = spectral.resolve(["standard", "marchenko_pastur", "randomized"])
    return clock(lambda: spectral.measure_many(items, metrics, options, [0] * len(items)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {
        "layers": 36,
        "width": 1280,
        "heads": 20,
        "batch": 8,
        "context": 1024,
        "tokens": 286657,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--windows", type=int, default=32, help="that are measured; the sweep is in proportion")
    asked = parser.parse_args()
    dtype = DTYPES[asked.precision]
    torch.set_float32_matmul_precision("high" if asked.precision == "tf32" else "highest")
    settings = {"n_layer": asked.layers, "n_embd": asked.width, "n_head": asked.heads, "n_positions": asked.context}
    network = open_network("transformers/gpt2", settings=settings, pretrained=False)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, network.skeleton.config.vocab_size, (asked.windows, asked.context + 1), dtype=np.int64)
    model = network.module(DEVICE, dtype)
    walk = PrefixWalk(model, ids[:, :-1].astype(np.int32), ids[:, 1:].copy(), asked.batch, lambda x: x.long())
    measured = asked.windows * asked.context

    whole = clock(walk.evaluate)
    gemm = gemm_rate(dtype, asked.batch * asked.context, asked.width)
    achieved = measured * flops_per_token(network, asked.context) / whole
    names = [f"transformer.h.{k}.attn.c_attn.weight" for k in range(asked.layers)]
    half, last = asked.layers // 2, asked.layers - 1
    walk.advance_to([names[half]])
    from_half = clock(walk.evaluate)
    advance = clock(lambda: walk.advance_to([names[last]]), 1)
    from_last = clock(walk.evaluate)

    law = laws_of(network.anew)["transformer.h.0.mlp.c_fc.weight"] if network.anew else None
    assert law is not None
    shape = (asked.width, 4 * asked.width)

    def draw_and_place() -> None:
        with perturbed(model, {"transformer.h.0.mlp.c_fc.weight": law.draw(rng, shape)}):
            wait()

    drawing = clock(draw_and_place)
    spectra = spectra_of_a_block(network)

    block = (whole - from_last) / last  # a pass from block k on costs from_last + (last - k) * block
    scale = asked.tokens / measured
    evaluations = DRAWS * scale * sum(4 * (from_last + (last - k) * block) for k in range(asked.layers))
    evaluations += 2 * DRAWS * scale * whole + scale * whole  # the two embeddings; the walk itself
    draws = DRAWS * asked.layers * 4 * drawing
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    print(f"GPT-2, {asked.layers} x {asked.width}, {asked.precision}, batch {asked.batch} x {asked.context}, {device}")
    print(f"  whole pass     {measured / whole:12,.0f} tokens/s, {achieved / 1e12:.1f} TFLOP/s")
    print(f"  gemm alone     {gemm / 1e12:12.1f} TFLOP/s: a pass reaches {100 * achieved / gemm:.0f} % of it")
    print(f"  from the middle{from_half / whole:12.2f} of a whole pass; to the last block {advance:.2f} s more")
    print(f"  drawing        {1e3 * drawing:12.0f} ms a layer, brought to the device")
    print(f"  spectra        {spectra:12.2f} s a block of four layers, all default metrics")
    minutes = (evaluations + draws) / 60
    print(f"  whole sweep    {minutes:12.1f} min on one device: {asked.layers * 4 + 2} layers x {DRAWS} draws,")
    print(f"                 {asked.tokens:,} tokens; {DRAWS * asked.layers * spectra / 60:.1f} min of spectra beside")


if __name__ == "__main__":
    main()
