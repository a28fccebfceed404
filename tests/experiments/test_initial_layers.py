"""Layers as they are initialised: which draws there are, and that a draw is what torch initialises."""

import numpy as np
import pytest
import scipy.stats
import torch

from raylab import config, experiments, spectral
from raylab.cluster import inline
from raylab.errors import UserError
from raylab.models.networks import of_module

SMALL = ["experiment=alpha_at_init", "model.inputs=20", "model.width=16", "model.depth=3", "metrics=[standard]"]


def built(*overrides):
    return experiments.build(config.compose([*SMALL, *overrides])[0])


def results(experiment, trials=None):
    return [r for batch in inline.stream(experiment, trials or experiment.trials()) for r in batch]


@pytest.fixture(scope="module")
def drawn():
    experiment = built("draws=60")
    return experiment, results(experiment)


def test_layers_of_one_shape_and_law_are_drawn_once_for_all(drawn):
    experiment, found = drawn
    populations = {(p.layer.name, p.stands_for, p.layer.shape) for p in experiment.populations.values()}
    assert populations == {("fc1", "fc1", (16, 20)), ("fc2", "fc2, fc3", (16, 16)), ("fc4", "fc4", (10, 16))}
    assert len(found) == 180 and {result.status for result in found} == {"ok"}
    assert len({result.trial.id for result in found}) == 180


def test_a_draw_is_what_torch_initialises_a_linear_layer_with(drawn):
    experiment, _ = drawn
    for population in experiment.populations.values():
        out, fan_in = population.layer.shape
        ours = np.concatenate([population.drawn(0, k).ravel() for k in range(200)])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theirs = [torch.nn.Linear(fan_in, out).weight.detach().numpy().ravel() for _ in range(200)]
        assert scipy.stats.ks_2samp(ours, np.concatenate(theirs)).pvalue > 1e-3


def test_a_row_is_the_spectrum_of_its_draw(drawn):
    experiment, found = drawn
    for result in found[::37]:
        population = experiment.populations[result.trial.checkpoint]
        weights = population.drawn(result.trial.seed, result.trial.draw)
        row = spectral.measure(weights, population.layer, experiment.metrics, experiment.options, 0)
        assert result.values["alpha"] == pytest.approx(row["alpha"], rel=1e-9, nan_ok=True)
        largest = np.linalg.norm(weights.astype(float), 2) ** 2
        assert result.values["spectral_norm"] == pytest.approx(largest, rel=1e-9)


def test_a_draw_is_the_same_whatever_else_is_drawn(drawn):
    _, found = drawn
    alphas = {(r.trial.layer, r.trial.draw): r.values["alpha"] for r in found}
    few = built("draws=3", "model.depth=2", "layers=[fc2]")
    assert [alphas[r.trial.layer, r.trial.draw] for r in results(few)] == [alphas["fc2", k] for k in range(3)]
    last = [trial for trial in few.trials() if trial.draw == 2]
    assert [r.values["alpha"] for r in results(few, last)] == [alphas["fc2", 2]]
    other = results(built("draws=3", "layers=[fc2]", "seed=1"))
    assert not {r.values["alpha"] for r in other} & set(alphas.values())


def test_models_of_libraries_are_drawn_by_the_laws_that_their_libraries_have():
    experiment = experiments.build(
        config.compose(
            [
                "experiment=alpha_at_init",
                "model=network",
                "model.source=timm/resnet18",
                "model.pretrained=false",
                "layers=[layer1.*.conv*,fc]",
                "draws=1",
            ]
        )[0]
    )
    populations = list(experiment.populations.values())
    assert [len(p.layers) for p in populations] == [4, 1]
    assert populations[0].law.startswith("N(0") and populations[1].law.startswith("U(")
    assert [r.status for r in results(experiment, experiment.trials()[:1])] == ["ok"]


class Close(torch.nn.Module):
    """Three layers of one shape: laws that print alike, N(0, 0.0501), and differ; an embedding as the first."""

    stds = {"a": 0.05011, "b": 0.05012, "c": 0.05011}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = torch.nn.Linear(12, 16), torch.nn.Linear(12, 16), torch.nn.Embedding(16, 12)
        for name, std in self.stds.items():
            torch.nn.init.normal_(self.get_submodule(name).weight, std=std)


class CloseByHand(Close):
    def initial_law(self, layer, parameter):
        return lambda rng: rng.normal(0, self.stds[layer.name], layer.shape).astype(np.float32)


def close():
    return of_module("close", Close(), Close)


@pytest.mark.parametrize("make", ["close", "CloseByHand"])
def test_laws_that_differ_in_the_fourth_digit_are_two_and_what_a_matrix_is_for_makes_no_other(make):
    words = [
        "experiment=alpha_at_init",
        "model=own",
        f"model._target_={__name__}.{make}",
        "metrics=[standard]",
        "draws=1",
    ]
    found = experiments.build(config.compose(words)[0])
    assert sorted(population.stands_for for population in found.populations.values()) == ["a, c", "b"]
    assert [result.status for result in results(found)] == ["ok", "ok"]


def test_the_plan_says_what_is_left(drawn):
    experiment, _ = drawn
    work = experiment.work(experiment.trials()[50:])
    assert work["population fc1"] == "16 x 20, U(-0.224, 0.224), for fc1; 10 draws to measure"
    assert "for fc2, fc3; 60 draws" in work["population fc2"]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UserError, match="No layer of this model can be drawn"):
        built("spectral.min_evals=1000")
