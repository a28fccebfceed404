"""What a search chooses from, read from Hydra's grammar and drawn from."""

import numpy as np
import pytest
import scipy.stats

from raylab import config, space
from raylab.errors import UserError
from raylab.space import Choice, Interval


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("seed=0,1,2", Choice(("0", "1", "2"))),
        ("seed=range(0,3)", Choice(("0", "1", "2"))),
        ("retractions=choice([newton_schulz],[qr])", Choice(("[newton_schulz]", "[qr]"))),
        ("ranges=choice([[2,6]],[[10,12]])", Choice(("[[2,6]]", "[[10,12]]"))),
        ("train.momentum=interval(0,0.9)", Interval(0.0, 0.9)),
        ("train.learning_rate=tag(log,interval(1e-3,1e-1))", Interval(1e-3, 1e-1, log=True)),
        ("model.width=int(interval(16,64))", Interval(16, 64, whole=True)),
    ],
)
def test_hydras_words_for_a_sweep(word, found):
    key = word.partition("=")[0]
    assert config.searched([word, "models=1"]) == (["models=1"], {key: found})
    assert config.searched([f"{key}={found}"])[1] == {key: found}, "what is written of it reads the same"


@pytest.mark.parametrize(
    "word", ["model=a/b.pt", "layers=[fc1,fc2]", "name='a,b'", "metrics=[my_lab:gini]", "seed=in("]
)
def test_one_value_is_left_as_it_is(word):
    assert config.searched([word]) == ([word], {})


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("seed=tag(x,interval(0,1))", "the tag 'x' means nothing"),
        ("train.momentum=interval(1,0)", "an interval goes up"),
        ("train.learning_rate=tag(log,interval(0,1))", "its logarithm from above 0"),
        ("seed=shuffle(range(0,3))", "write key=choice(a,b)"),
        ("model=glob(*)", "write key=choice(a,b)"),
        ("results=choice(a,b)", "results changes no answer, and cannot be searched"),
        ("cluster.workers=1,2", "cluster.workers changes no answer"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(word, says):
    with pytest.raises(UserError) as error:
        config.searched([word])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_several_values_are_not_for_one_run():
    for word in ("seed=0,1", "seed=range(0,3)", "train.learning_rate=interval(0,1)"):
        with pytest.raises(UserError, match=r"gives several values, which `python -m raylab\.tune` tries"):
            config.compose([word])


def test_a_grid_is_every_combination_and_needs_values():
    both = {"a": Choice(("1", "2")), "b": Choice(("x", "y"))}
    assert space.grid(both) == [{"a": a, "b": b} for a in "12" for b in "xy"]
    with pytest.raises(UserError, match=r"write c=choice\(\.\.\.\) or tune\.search=random"):
        space.grid({**both, "c": Interval(0, 1)})


def test_more_random_samples_begin_with_the_fewer():
    over = {"a": Interval(0.001, 1.0, log=True), "b": Choice(("x", "y"))}
    assert space.randomly(over, 20, seed=3)[:10] == space.randomly(over, 10, seed=3) != space.randomly(over, 10, seed=4)


@pytest.mark.parametrize(
    ("interval", "law"),
    [
        (Interval(-1.0, 3.0), scipy.stats.uniform(-1, 4)),
        (Interval(1e-3, 1e1, log=True), scipy.stats.loguniform(1e-3, 1e1)),
    ],
)
def test_an_interval_is_drawn_from_evenly(interval, law):
    rng = np.random.default_rng(0)
    drawn = [float(interval.draw(rng)) for _ in range(2000)]
    assert scipy.stats.kstest(drawn, law.cdf).pvalue > 0.01


def test_whole_numbers_reach_both_ends_alike():
    rng = np.random.default_rng(0)
    drawn = [Interval(1, 4, whole=True).draw(rng) for _ in range(4000)]
    counts = [drawn.count(text) for text in "1234"]
    assert sum(counts) == 4000 and scipy.stats.chisquare(counts).pvalue > 0.01


def test_every_word_is_tried_before_a_search_and_the_ends_of_numbers():
    over = {"lr": Interval(0.1, 0.5), "seed": Choice(("0", "1", "2")), "model": Choice(("fcn", "fnc", "own"))}
    tried = space.probes(over)
    assert tried[0] == {"lr": "0.1", "seed": "0", "model": "fcn"}
    assert {sample["model"] for sample in tried} == {"fcn", "fnc", "own"}
    assert {sample["lr"] for sample in tried} == {"0.1", "0.5"} and {sample["seed"] for sample in tried} == {"0", "2"}
