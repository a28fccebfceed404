"""Models made of measured draws: every alpha in its range, no draw twice, the same whatever else is asked for."""

import numpy as np
import pytest

from raylab import config, experiments
from raylab.cluster import inline
from raylab.errors import UserError
from raylab.run import main

MODEL = ["model.width=16", "model.depth=3"]
RANGES = "ranges=[[2,4],[5,9]]"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool") / "alpha_at_init"
    words = ["model.inputs=64", "draws=150", "cluster=inline", "progress=none", f"results={folder}"]
    assert main(["experiment=alpha_at_init", *MODEL, *words]) == 0
    return folder


def built(pool, *overrides):
    words = ["experiment=models_by_alpha", "data=digits", *MODEL, f"pool={pool}", "models=3", RANGES, *overrides]
    return experiments.build(config.compose(words)[0])


@pytest.fixture(scope="module")
def made(pool):
    experiment = built(pool)
    return experiment, [r for batch in inline.stream(experiment, experiment.trials()) for r in batch]


def test_every_layer_has_its_alpha_in_the_range_and_no_draw_serves_twice(made):
    experiment, found = made
    assert {result.status for result in found} == {"ok"}
    assert len(found) == 3 * 2 * 2 * (1 + 4)  # models, ranges, with and without biases; the model and its layers
    bounds = {"[2, 4]": (2, 4), "[5, 9]": (5, 9)}
    used = set()
    for result in found:
        if result.trial.layer is not None:
            low, high = bounds[result.values["alpha_range"]]
            assert low <= result.values["alpha"] <= high
            if result.values["biases"] == "drawn":
                population = experiment.drawn.populations[result.trial.layer].digest
                used.add((population, result.values["alpha_range"], result.values["pool_draw"]))
    assert len(used) == 3 * 2 * 4


def test_the_accuracy_is_that_of_the_network_written_out(made):
    experiment, found = made
    x, y = experiment.drawn.data.test_x, experiment.drawn.data.test_y
    for result in found[::13]:
        state = experiment.drawn.state(experiment.choices[result.trial.checkpoint])
        if result.values["biases"] == "zero":
            assert not any(array.any() for name, array in state.items() if name.endswith("bias"))
        h = x
        for k in range(1, 5):
            h = h @ state[f"fc{k}.weight"].T + state[f"fc{k}.bias"]
            h = np.maximum(h, 0) if k < 4 else h
        assert result.values["accuracy"] == pytest.approx((h.argmax(1) == y).mean(), abs=2 / len(y))
        if result.trial.layer:
            largest = np.linalg.norm(state[f"{result.trial.layer}.weight"].astype(float), 2) ** 2
            assert result.values["spectral_norm"] == pytest.approx(largest, rel=1e-9)


def test_a_model_is_the_same_however_many_there_are(pool, made):
    _, found = made
    fewer = built(pool, "models=1", "ranges=[[5,9]]")
    again = [r for batch in inline.stream(fewer, fewer.trials()) for r in batch]
    before = {r.trial.id: r.values for r in found}
    assert len(again) == 10 and all(r.values == before[r.trial.id] for r in again)


def test_biases_are_all_that_differs_between_the_two_of_a_pair(made):
    experiment, _ = made
    choices = sorted(experiment.choices.values(), key=lambda each: (each.alpha_range, each.replicate, each.biases))
    for one, other in zip(choices[::2], choices[1::2], strict=True):
        assert (one.biases, other.biases) == ("drawn", "zero") and one.draws == other.draws


def test_a_pool_that_is_too_small_says_what_would_do(pool):
    says = r"take 200 draws of 16 x 16, and \d+ of the 150 .* draws=\d+00` is likely to have enough, after about \d"
    with pytest.raises(UserError, match=says) as error:
        built(pool, "models=100")
    command = str(error.value).split("`")[1].split()
    assert {f"results={pool}", "model.inputs=64", *MODEL} <= set(command) and command[-1].startswith("draws=")
    assert sum(word.startswith("draws=") for word in command) == 1


def test_the_plan_says_how_many_draws_are_accepted(pool):
    from raylab.data.pool import draws

    experiment = built(pool)
    name = experiment.drawn.populations["fc2"].digest
    alpha = draws(pool, "initial", 0)[name].alpha
    inside = int(((alpha >= 5) & (alpha <= 9)).sum())
    said = experiment.work(experiment.trials())["pool of 16 x 16 in [5, 9]"]
    assert said == f"{100 * inside / 150:.2f} % of 150 draws accepted, 6 of {inside} taken"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ranges=[2,6]", "must be pairs of numbers"),
        ("ranges=[[6,2]]", r"6 is not less than 2: write \[2, 6\]"),
        ("ranges=[]", "names no range"),
        (
            "spectral.estimator=median",
            "was measured with spectral.estimator=ks, and this experiment measures with median",
        ),
        ("pool=null", "from a pool of draws"),
        ("pool=/nowhere", "is no results folder with rows"),
        ("seed=5", "has no draws of seed 5"),
        ("model.width=17", r"has draws of 16 x 10, 16 x 16, 64 x 16, and this model takes 64 x 17 \(fc1\)"),
        ("layers=[fc1,fc2]", "drawn whole, and fc3 cannot be measured"),
    ],
)
def test_what_makes_no_sense_is_one_line(pool, override, says):
    with pytest.raises(UserError, match=says) as error:
        built(pool, override)
    assert "\n" not in str(error.value)


def test_ranges_that_share_a_model_are_refused(pool):
    """Both would be one row, with either range as its label."""
    with pytest.raises(UserError, match=r"alpha in \[2, 4.001\] is made of the same draws as one in \[2, 4\]"):
        built(pool, "ranges=[[2,4],[2,4.001]]")
