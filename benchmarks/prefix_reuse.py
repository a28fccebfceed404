"""What the reuse of activations saves in a sweep: every layer perturbed, from the last cut below it and naively.

python -m benchmarks.prefix_reuse [MODEL ...] [--draws N]

MODEL: fcn, resnet34, vit, gpt2, gpt2_headless (its trunk alone: what the head costs can never be saved); default: all.
Real sizes, random weights, random inputs, one core; the two roads in turn at every layer; the answers must be equal bit
for bit. Whole blocks alone, n equal ones, would let a sweep cost (n + 1) / 2n of naive; then what is saved within them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from raylab.evaluate import Evaluation, PrefixWalk
from raylab.layers import LayerParameters, find_layers, parameters_of
from raylab.models.fcn import FCN
from raylab.models.kernels import take_the_fast_road
from raylab.models.networks import open_network
from raylab.perturb import perturbed
from raylab.types import Array

rng = np.random.default_rng(0)


@dataclass
class Case:
    name: str
    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    batch_size: int

    def layers(self) -> list[LayerParameters]:
        return list(filter(None, parameters_of(self.model, find_layers(self.model)[0])))

    def walk(self) -> PrefixWalk:
        return PrefixWalk(self.model, self.x, self.y, self.batch_size)

    def change(self, parameters: LayerParameters, draw: int) -> dict[str, Array]:
        """Other weights, at no cost: what is drawn how fast is not the question here."""
        named = {name: self.model.get_parameter(name) for name in parameters.names}
        return {name: p.detach().numpy() * np.float32(-0.5 - draw) for name, p in named.items()}


def fcn() -> Case:
    model = FCN(784, 10, depth=5, width=512)
    model.load(model.initial_state(rng))
    return Case("FCN 784-512x5-10, 10,000 samples", model, images(10_000, 784), classes(10_000, 10), 2500)


def given(what: str) -> nn.Module:
    """A model as the experiments evaluate it."""
    model = open_network(what, pretrained=False).module()
    take_the_fast_road(model)
    return model


def resnet34() -> Case:
    model = given("timm/resnet34")
    return Case("ResNet34, 16 images", model, images(16, 3, 224, 224), classes(16, 1000), 16)


def vit() -> Case:
    model = given("timm/vit_base_patch16_224")
    return Case("ViT-B/16, 4 images", model, images(4, 3, 224, 224), classes(4, 1000), 4)


def gpt2() -> Case:
    model = given("transformers/gpt2")
    return Case("GPT-2 with LM loss, 1,024 tokens", model, *tokens(), 1)


def gpt2_headless() -> Case:
    model: Any = given("transformers/gpt2")
    model.lm_head = nn.Identity()
    x, y = tokens()
    return Case("GPT-2 without the head, 1,024 tokens", model, x, y % 768, 1)


def images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def classes(samples: int, many: int) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, many, samples))


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(rng.integers(0, 50257, (1, 1025)))
    return ids[:, :-1], ids[:, 1:]


def sweep(case: Case, draws: int) -> dict[str, float]:
    """Seconds of both roads through a whole sweep, layer by layer in turn, so that other work slows both alike.

    And of finding the cuts and trying each, which takes a few samples, however many there are: once a model.
    """
    start = time.process_time()
    walks = {"naive": case.walk(), "reused": case.walk()}
    layers = sorted(case.layers(), key=lambda each: walks["reused"].depth(each.names))
    for parameters in layers:
        walks["reused"].advance_to(parameters.names)
    walks["reused"].rewind()
    seconds = {"cuts": time.process_time() - start, "naive": 0.0, "reused": 0.0}
    for parameters in layers:
        results = {}
        for road, walk in walks.items():
            start = time.process_time()
            if road == "reused":
                walk.advance_to(parameters.names)
            results[road] = [evaluated(walk, case, parameters, draw) for draw in range(draws)]
            seconds[road] += time.process_time() - start
        assert results["naive"] == results["reused"], "the answers differ"
    return seconds


def evaluated(walk: PrefixWalk, case: Case, parameters: LayerParameters, draw: int) -> Evaluation:
    with perturbed(walk.model, case.change(parameters, draw)):
        return walk.evaluate()


CASES = {function.__name__: function for function in (fcn, resnet34, vit, gpt2, gpt2_headless)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(CASES))
    parser.add_argument("--draws", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.models:
        case = CASES[name]()
        seconds = sweep(case, asked.draws)
        ratio = seconds["naive"] / seconds["reused"]
        print(
            f"{case.name}: {len(case.layers())} layers x {asked.draws} draws, naive {seconds['naive']:.1f} s, "
            f"reused {seconds['reused']:.1f} s: {ratio:.2f} times; the cuts {seconds['cuts']:.1f} s, once",
            flush=True,
        )


if __name__ == "__main__":
    main()
