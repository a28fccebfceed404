"""The layers of one model on a worker: what is evaluated at once, and what goes wrong."""

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raylab.evaluate import PrefixWalk
from raylab.experiments.walk import STACK, LayerWalk
from raylab.layers import find_layers, parameters_of
from raylab.types import LayerWeights, SpectralOptions, Trial

SAMPLES = 4
X = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(SAMPLES)


class Company(nn.Module):
    """What a row gives depends on the others in the batch, as the last digits of a product do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.body(x).relu())
        return logits + 1e-5 * logits.mean(0, keepdim=True)


def fresh(weights: LayerWeights, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(weights.trained.shape).astype(np.float32)


def layer_walk(perturbation=fresh, model: type[nn.Module] = Company) -> LayerWalk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = model().requires_grad_(False)
    options = SpectralOptions()
    layers = parameters_of(made, find_layers(made, options)[0], options)
    tensors = {name: parameter.numpy() for name, parameter in made.named_parameters()}

    def weights(parameters):
        leaves = zip(("weight", "bias"), parameters.names, strict=True)
        return {leaf: LayerWeights(parameters.layer, leaf, tensors[name], None, fresh) for leaf, name in leaves}

    walk = PrefixWalk(made, X, Y, batch_size=100 * SAMPLES)
    return LayerWalk(walk, layers, {"fresh": perturbation}, weights, tensors.__getitem__, options=options)


def trials(draws: int, layer: str = "body") -> list[Trial]:
    return [Trial("e", "m", 0, "c", "d", layer, "fresh", draw, 0, "k") for draw in range(draws)]


def losses(walk: LayerWalk, some: list[Trial]) -> dict[int, object]:
    return {o.result.trial.draw: o.result.values.get("loss", o.result.error) for o in walk.outcomes(some)}


def counted(walk: LayerWalk) -> list[int]:
    """The rows of each pass through the head, but those which show once whether rows are apart."""
    assert walk._walk.capacity(["body.weight"]) == 100
    rows: list[int] = []
    walk._walk.model.head.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    return rows


def test_the_answer_of_a_draw_does_not_depend_on_which_others_are_asked_for():
    walk = layer_walk()
    every = losses(walk, trials(2 * STACK + 2))
    assert len(set(every.values())) == 2 * STACK + 2
    assert losses(layer_walk(), trials(3)) == {draw: every[draw] for draw in range(3)}
    for draw in (0, 3, STACK + 1):
        assert losses(walk, [trials(2 * STACK)[draw]]) == {draw: every[draw]}
    rows = counted(walk)
    losses(walk, trials(STACK))
    assert rows == [STACK * SAMPLES]


def test_a_draw_that_fails_fails_alone_and_the_others_are_what_they_were():
    def sometimes(weights, rng):
        new = fresh(weights, rng)
        if new.flat[0] > 0.5:
            raise ZeroDivisionError("no such draw")
        return new

    expected, found = losses(layer_walk(), trials(STACK)), losses(layer_walk(sometimes), trials(STACK))
    failed = {draw for draw, value in found.items() if isinstance(value, str)}
    assert 0 < len(failed) < STACK
    assert all("ZeroDivisionError: no such draw" in str(found[draw]) for draw in failed)
    alone = {draw: losses(layer_walk(sometimes), [trials(STACK)[draw]])[draw] for draw in found if draw not in failed}
    assert alone == {draw: value for draw, value in found.items() if draw not in failed}
    for draw in alone:
        assert found[draw] == pytest.approx(expected[draw], rel=0.1)


def test_when_memory_runs_out_each_draw_is_evaluated_by_itself(monkeypatch):
    walk = layer_walk()
    expected = losses(walk, trials(STACK))
    rows = counted(walk)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PrefixWalk, "evaluate_each", full)
    found = losses(walk, trials(STACK))
    assert rows == [SAMPLES] * STACK
    assert all(found[draw] == pytest.approx(expected[draw], rel=0.1) for draw in expected)


def test_what_lay_in_memory_when_it_ran_out_is_gone_when_draws_are_evaluated_by_themselves(monkeypatch):
    walk, left, alone = layer_walk(), [], PrefixWalk.evaluate

    def full(*_):
        activations = torch.zeros(3)
        left.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    def evaluate(*arguments):
        assert left[0]() is None
        return alone(*arguments)

    monkeypatch.setattr(PrefixWalk, "evaluate_each", full)
    monkeypatch.setattr(PrefixWalk, "evaluate", evaluate)
    assert [o.result.status for o in walk.outcomes(trials(2))] == ["ok"] * 2 and len(left) == 1


def test_a_mistake_in_the_code_is_seen_and_not_worked_around(monkeypatch):
    walk = layer_walk()
    rows = counted(walk)
    monkeypatch.setattr(PrefixWalk, "evaluate_each", lambda *_: [][1])
    outcomes = list(walk.outcomes(trials(2)))
    assert [o.result.status for o in outcomes] == ["failed"] * 2
    assert all("IndexError" in str(o.result.error) for o in outcomes)
    assert not rows
