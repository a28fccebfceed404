"""Training against torch.optim.SGD and autograd, which we did not write."""

import re

import numpy as np
import pytest
import torch

from raylab.data import ClassificationData, digits
from raylab.models.fcn import FCN
from raylab.train import DivergedError, State, train, train_stacked
from raylab.types import Recipe

DATA = digits.load()
MODEL = FCN(64, 10, depth=3, width=24)
RECIPES = [
    Recipe(learning_rate=0.05, batch_size=128, epochs=4),
    Recipe(learning_rate=0.05, batch_size=128, epochs=4, momentum=0.9),
    Recipe(learning_rate=0.05, batch_size=100, epochs=4, weight_decay=0.01),
    Recipe(learning_rate=0.02, batch_size=2000, epochs=6, momentum=0.8, weight_decay=0.1),
]
recipes = pytest.mark.parametrize("recipe", RECIPES, ids=["plain", "momentum", "decay", "both"])


def rng(k: int) -> np.random.Generator:
    return np.random.default_rng([5, k])


def initial(k: int = 0) -> State:
    return MODEL.initial_state(np.random.default_rng([4, k]))


def torch_sgd(start: State, data: ClassificationData, recipe: Recipe, generator: np.random.Generator) -> State:
    """The oracle: a plain torch network in float64, autograd, torch.optim.SGD, the same order of samples."""
    sizes = [array.shape for name, array in start.items() if name.endswith("weight")]
    layers = [torch.nn.Linear(fan_in, fan_out, dtype=torch.float64) for fan_out, fan_in in sizes]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    with torch.no_grad():
        for p, array in zip(parameters, start.values(), strict=True):
            p.copy_(torch.from_numpy(array))
    optimizer = torch.optim.SGD(
        parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    x, y = torch.from_numpy(data.train_x).double(), torch.from_numpy(data.train_y)
    for epoch in range(1, recipe.epochs + 1):
        for rows in torch.from_numpy(generator.permutation(len(y))).split(recipe.batch_size):
            h = x[rows]
            for layer in layers[:-1]:
                h = layer(h).relu()
            loss = torch.nn.functional.cross_entropy(layers[-1](h), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not torch.isfinite(loss):
            raise FloatingPointError(str(epoch))
    return {name: p.detach().numpy() for name, p in zip(start, parameters, strict=True)}


def assert_close(a: State, b: State, tolerance: float) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance, err_msg=name)


@recipes
def test_training_is_sgd(recipe):
    ours, theirs = train(initial(), DATA, recipe, rng(0)), torch_sgd(initial(), DATA, recipe, rng(0))
    assert_close(ours, theirs, 5e-6)
    assert max(np.abs(ours[name] - initial()[name]).max() for name in ours) > 1e-2  # it went somewhere


@recipes
def test_a_stack_is_each_of_its_models(recipe):
    stacked = train_stacked([initial(k) for k in range(3)], DATA, recipe, [rng(k) for k in range(3)], "cpu")
    for k, state in enumerate(stacked):
        assert not isinstance(state, Exception)
        assert_close(state, train(initial(k), DATA, recipe, rng(k)), 5e-6)


def test_the_same_generator_gives_the_same_weights_bit_for_bit_and_leaves_theta_0_alone():
    start = initial()
    first = train(start, DATA, RECIPES[0], rng(0))
    assert_close(train(start, DATA, RECIPES[0], rng(0)), first, 0)
    assert_close(start, initial(), 0)
    assert not np.array_equal(train(start, DATA, RECIPES[0], rng(1))["fc1.weight"], first["fc1.weight"])
    assert all(array.dtype == np.float32 for array in first.values())


def test_digits_are_learned():
    state = train(initial(), DATA, Recipe(learning_rate=0.1, batch_size=32, epochs=20), rng(0))
    model = FCN(64, 10, depth=3, width=24).load(state)
    with torch.no_grad():
        guess = model(torch.from_numpy(DATA.test_x)).argmax(1).numpy()
    assert (guess == DATA.test_y).mean() > 0.9


def test_no_epochs_is_no_training():
    assert_close(train(initial(), DATA, Recipe(epochs=0), rng(0)), initial(), 0)


def test_a_linear_model_trains_too():
    start = FCN(64, 10, depth=0, width=1).initial_state(rng(3))
    assert_close(train(start, DATA, RECIPES[0], rng(0)), torch_sgd(start, DATA, RECIPES[0], rng(0)), 5e-6)


def test_read_only_data_such_as_rays_are_fine():
    for array in (x := digits.load()).train_x, x.train_y:
        array.flags.writeable = False
    start = {name: array.copy() for name, array in initial().items()}
    for array in start.values():
        array.flags.writeable = False
    assert_close(train(start, x, RECIPES[0], rng(0)), train(initial(), DATA, RECIPES[0], rng(0)), 0)


def test_divergence_names_the_epoch():
    """Momentum above 1 grows without end; float32 overflows in some later epoch, and the message says in which."""
    recipe = Recipe(learning_rate=0.05, batch_size=1300, epochs=400, momentum=1.2)
    with pytest.raises(DivergedError, match="not finite in epoch") as error:
        train(initial(), DATA, recipe, rng(0))
    epoch = int(re.findall(r"epoch (\d+)", str(error.value))[0])
    assert 10 < epoch < 400
    recipe.epochs = epoch - 1
    assert all(np.isfinite(a).all() for a in train(initial(), DATA, recipe, rng(0)).values())


def test_one_divergence_does_not_take_the_stack_along():
    bad = initial(1)
    bad["fc2.weight"][0, 0] = np.inf
    one, two, three = train_stacked([initial(0), bad, initial(2)], DATA, RECIPES[0], [rng(k) for k in range(3)], "cpu")
    assert isinstance(two, DivergedError) and "epoch 1 of 4" in str(two)
    assert not isinstance(one, Exception) and not isinstance(three, Exception)
    assert_close(one, train(initial(0), DATA, RECIPES[0], rng(0)), 5e-6)
    assert_close(three, train(initial(2), DATA, RECIPES[0], rng(2)), 5e-6)


def test_torchs_threads_are_as_before_also_after_a_failure():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="weight and bias"):
            train({"fc1.bias": np.zeros(3)}, DATA, Recipe(), rng(0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
