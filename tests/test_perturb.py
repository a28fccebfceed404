import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raylab.errors import UserError
from raylab.models.fcn import FCN
from raylab.models.kernels import as_tensor
from raylab.perturb import DETERMINISTIC, PERTURBATIONS, perturb, perturbed
from raylab.types import Layer, LayerWeights, Trial, generator

MODEL = FCN(12, 4, depth=2, width=9)
INITIAL = MODEL.initial_state(np.random.default_rng([0, 1]))
TRAINED = {name: array + np.float32(0.5) for name, array in INITIAL.items()}


def layer_weights(name: str, initial=INITIAL) -> dict[str, LayerWeights]:
    layer = Layer(name, MODEL.layer_names.index(name), "linear", TRAINED[f"{name}.weight"].shape)
    return {
        p: LayerWeights(
            layer, p, TRAINED[f"{name}.{p}"], initial and initial[f"{name}.{p}"], MODEL.initial_law(layer, p)
        )
        for p in ("weight", "bias")
    }


def run(name: str, layer: str = "fc2", seed: int = 7, **options) -> dict[str, np.ndarray]:
    return perturb(PERTURBATIONS.resolve(name), layer_weights(layer, **options), np.random.default_rng(seed))


@pytest.mark.parametrize("name", list(PERTURBATIONS))
@pytest.mark.parametrize("layer", MODEL.layer_names)
def test_shapes_dtypes_and_the_trained_weights_stay(name, layer):
    before = {key: array.copy() for key, array in TRAINED.items()}
    for parameter, array in run(name, layer).items():
        assert array.shape == TRAINED[f"{layer}.{parameter}"].shape and array.dtype == np.float32
    assert all(np.array_equal(before[key], TRAINED[key]) for key in before)


@pytest.mark.parametrize("name", list(PERTURBATIONS))
def test_a_generator_decides_the_draw(name):
    a, b, other = run(name, seed=1), run(name, seed=1), run(name, seed=2)
    for parameter in a:
        np.testing.assert_array_equal(a[parameter], b[parameter])
        assert np.array_equal(a[parameter], other[parameter]) == (name in DETERMINISTIC)


def test_original_and_reinit_give_what_they_are_named_after():
    for parameter in ("weight", "bias"):
        np.testing.assert_array_equal(run("original")[parameter], TRAINED[f"fc2.{parameter}"])
        np.testing.assert_array_equal(run("reinit")[parameter], INITIAL[f"fc2.{parameter}"])


def test_rerandomize_stays_within_the_law_and_is_new():
    for parameter, array in run("rerandomize").items():
        assert np.abs(array).max() <= 1 / 3  # 1/sqrt(9)
        assert not np.isin(array, INITIAL[f"fc2.{parameter}"]).any()


def test_reinit_signs_takes_signs_from_one_and_magnitudes_from_the_other():
    for parameter, array in run("reinit_signs").items():
        np.testing.assert_array_equal(np.sign(array), np.sign(INITIAL[f"fc2.{parameter}"]))
        np.testing.assert_array_equal(np.abs(array), np.abs(run("rerandomize")[parameter]))


def test_permute_keeps_the_entries_and_moves_them():
    for parameter, array in run("permute").items():
        trained = TRAINED[f"fc2.{parameter}"]
        np.testing.assert_array_equal(np.sort(array, axis=None), np.sort(trained, axis=None))
        assert not np.array_equal(array, trained)


@pytest.mark.parametrize("name", ["reinit", "reinit_signs"])
def test_a_model_without_theta_0_cannot_be_reinitialised(name):
    with pytest.raises(UserError, match=r"fc2 has no known initial weights.*perturbations=\[rerandomize\]"):
        run(name, initial=None)
    assert run("rerandomize", initial=None)["weight"].shape == (9, 9)


@given(seed=st.integers(0, 2**31), replicate=st.integers(0, 99), draw=st.integers(0, 9))
def test_a_trials_generator_never_draws_the_initialisation_again(seed, replicate, draw):
    """The trap: a re-randomised layer that is theta_0 bit for bit, for whatever layer and seed."""
    initial = MODEL.initial_state(generator(seed, "initial", str(replicate)))
    for name in MODEL.layer_names:
        trial = Trial("e", "m", replicate, "c", "d", name, "rerandomize", draw, seed, "x")
        fresh = perturb(PERTURBATIONS.resolve("rerandomize"), layer_weights(name, initial), trial.rng())
        assert not np.isin(fresh["weight"], initial[f"{name}.weight"]).all()


@pytest.mark.parametrize("name", ["rerandomize", "reinit_signs"])
def test_a_generator_seeded_like_the_initialisation_is_caught(name):
    with pytest.raises(ValueError, match="the generator is the initialisation's"):
        perturb(PERTURBATIONS.resolve(name), layer_weights("fc1"), np.random.default_rng([0, 1]))


def test_a_law_that_is_constant_is_no_such_mistake():
    layer = Layer("norm", 0, "linear", (3, 3))
    zeros = np.zeros(3, np.float32)
    weights = {"bias": LayerWeights(layer, "bias", zeros + 1, zeros, lambda rng: zeros)}
    np.testing.assert_array_equal(
        perturb(PERTURBATIONS.resolve("rerandomize"), weights, np.random.default_rng(0))["bias"], zeros
    )


def test_a_perturbation_of_ones_own_is_pointed_to(monkeypatch):
    lab = types.ModuleType("my_lab")
    lab.rotate = lambda weights, rng: np.roll(weights.trained, 1).astype(np.float64)  # type: ignore[attr-defined]
    lab.shrink = lambda weights, rng: weights.trained[:1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_lab", lab)
    rotated = run("my_lab:rotate")["weight"]
    np.testing.assert_array_equal(rotated, np.roll(TRAINED["fc2.weight"], 1))
    assert rotated.dtype == np.float32
    with pytest.raises(UserError, match=r"made \(1, 9\) of fc2\.weight, which has shape \(9, 9\)"):
        run("my_lab:shrink")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda weights, rng: weights.trained * np.nan, r"made NaN or infinite numbers .* of fc2\.weight: return"),
        (lambda weights, rng: weights.trained + np.inf, "NaN or infinite"),
        (lambda weights, rng: weights.trained.astype(float) + 1e300, r"\(float32\)"),  # too large for the dtype
        (lambda weights, rng: weights.trained * 1j, "an array of complex64 of fc2.weight: return real numbers"),
        (lambda weights, rng: weights.trained.astype(str), "return real numbers"),
    ],
)
def test_what_is_no_finite_number_is_no_perturbation(made, says):
    with pytest.raises(UserError, match=says) as error:
        perturb(made, layer_weights("fc2"), np.random.default_rng(0))
    assert "\n" not in str(error.value)


def test_a_layer_that_is_broken_already_is_not_blamed_on_the_perturbation():
    layer = Layer("norm", 0, "linear", (3, 3))
    broken = np.full((3, 3), np.nan, np.float32)
    weights = {"weight": LayerWeights(layer, "weight", broken, None, lambda rng: broken)}
    with pytest.raises(UserError, match="the model's own are not all finite"):
        perturb(PERTURBATIONS.resolve("permute"), weights, np.random.default_rng(0))


def test_a_typo_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'rerandomize'"):
        PERTURBATIONS.resolve("rerandomise")


def loaded() -> FCN:
    return FCN(12, 4, depth=2, width=9).load(TRAINED)


def full(layer: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{layer}.{name}": array for name, array in arrays.items()}


def test_perturbed_restores_exactly_also_after_an_exception():
    model = loaded()
    pointers = [p.data_ptr() for p in model.parameters()]
    new = full("fc2", run("rerandomize"))
    with pytest.raises(RuntimeError, match="inside"), perturbed(model, new):
        assert all(np.array_equal(model.get_parameter(name).detach(), new[name]) for name in new)
        assert np.array_equal(model.get_parameter("fc1.weight").detach(), TRAINED["fc1.weight"])
        raise RuntimeError("inside")
    assert pointers == [p.data_ptr() for p in model.parameters()]
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.detach().numpy(), TRAINED[name])


def test_parameters_of_several_layers_change_together():
    model = loaded()
    new = full("fc1", run("rerandomize", "fc1")) | full("fc3", run("rerandomize", "fc3"))
    with perturbed(model, new):
        assert all(np.array_equal(model.get_parameter(name).detach(), new[name]) for name in new)
        assert np.array_equal(model.get_parameter("fc2.weight").detach(), TRAINED["fc2.weight"])


def test_writing_to_perturbed_weights_touches_neither_the_model_nor_the_array():
    model, new = loaded(), full("fc2", run("rerandomize"))
    kept = new["fc2.weight"].copy()
    with perturbed(model, new), torch.no_grad():
        model.get_parameter("fc2.weight").zero_()
    np.testing.assert_array_equal(model.get_parameter("fc2.weight").detach(), TRAINED["fc2.weight"])
    np.testing.assert_array_equal(new["fc2.weight"], kept)


def test_perturbations_nest():
    model = loaded()
    inner = full("fc1", run("permute", "fc1"))
    with perturbed(model, full("fc1", run("reinit", "fc1"))):
        with perturbed(model, inner):
            np.testing.assert_array_equal(model.get_parameter("fc1.weight").detach(), inner["fc1.weight"])
        np.testing.assert_array_equal(model.get_parameter("fc1.weight").detach(), INITIAL["fc1.weight"])
    np.testing.assert_array_equal(model.get_parameter("fc1.weight").detach(), TRAINED["fc1.weight"])


def test_read_only_arrays_such_as_rays_are_fine_on_both_sides():
    new = full("fc2", run("rerandomize"))
    for array in new.values():
        array.flags.writeable = False
    model = loaded()
    held = TRAINED["fc2.weight"].copy()
    held.flags.writeable = False
    model.get_parameter("fc2.weight").data = as_tensor(held)
    with perturbed(model, new):
        np.testing.assert_array_equal(model.get_parameter("fc2.weight").detach(), new["fc2.weight"])
    np.testing.assert_array_equal(model.get_parameter("fc2.weight").detach(), held)


def test_memory_format_and_dtype_of_a_convolution_are_kept():
    conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last).double()
    new = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    with perturbed(conv, {"0.weight": new}):
        weight = conv.get_parameter("0.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last) and weight.dtype == torch.float64
        np.testing.assert_array_equal(weight.detach(), new)


def test_tied_weights_change_together():
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 4), "head": torch.nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    with perturbed(model, {"embed.weight": np.ones((5, 4), np.float32)}):
        assert torch.equal(model["head"].weight, torch.ones(5, 4))


def test_a_parameter_of_the_model_itself_has_a_name_without_a_dot():
    model = torch.nn.ParameterDict({"scale": torch.nn.Parameter(torch.zeros(3))})
    with perturbed(model, {"scale": np.ones(3, np.float32)}):
        assert torch.equal(model["scale"].detach(), torch.ones(3))
    assert not model["scale"].any()


@pytest.mark.parametrize(
    "bad",
    [
        {"fc9.weight": np.zeros((9, 9), np.float32)},
        {"fc2.gain": np.zeros((9, 9), np.float32)},
        {"fc2": np.zeros((9, 9), np.float32)},
        {"fc2.weight": np.zeros((9, 8), np.float32)},
    ],
)
def test_what_the_model_does_not_have_is_refused_before_anything_changes(bad):
    model = loaded()
    good = full("fc1", run("rerandomize", "fc1"))
    with pytest.raises(ValueError, match=r"has no parameter|has shape"), perturbed(model, good | bad):
        pytest.fail("entered")
    assert all(np.array_equal(p.detach(), TRAINED[name]) for name, p in model.named_parameters())
