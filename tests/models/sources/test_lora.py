"""Adapters written by hand in PEFT's format (get_peft_model_state_dict), merged by its formulas (get_delta_weight)."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import raylab
from raylab.errors import UserError
from raylab.layers import find_layers
from raylab.models.sources import open_model
from raylab.spectral import low_rank
from raylab.types import SpectralOptions

CONFIG = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 16, "use_rslora": False, "fan_in_fan_out": False, "rank_pattern": {},
    "alpha_pattern": {}, "use_dora": False, "init_lora_weights": True, "target_modules": ["q", "wte"], "bias": "none",
    "base_model_name_or_path": "someone/base", "modules_to_save": None, "layer_replication": None,
}  # fmt: skip
PREFIX = "base_model.model."


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def linear(layer, out, into, r=4):
    return {
        f"{PREFIX}{layer}.lora_A.weight": draw(r, into, seed=len(layer)),
        f"{PREFIX}{layer}.lora_B.weight": draw(out, r, seed=len(layer)),
    }


def adapter(folder, tensors, suffix="safetensors", **config):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    write = save_file if suffix == "safetensors" else torch.save
    write(tensors, folder / f"adapter_model.{suffix}")
    return folder


def factors(tensors, layer):
    return tensors[f"{PREFIX}{layer}.lora_A.weight"].double(), tensors[f"{PREFIX}{layer}.lora_B.weight"].double()


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 16 / 4),
        ({"use_rslora": True}, 16 / 2),
        ({"alpha_pattern": {"h.1.q": 3}}, 3 / 4),
        ({"alpha_pattern": {"h.1": 3, "h.2.q": 5}}, 16 / 4),
        ({"alpha_pattern": {r"h\.[1-3]\.q": 3}}, 3 / 4),
    ],
)
def test_alone(tmp_path, suffix, config, scale):
    tensors = linear("h.1.q", 30, 20)
    source = open_model(adapter(tmp_path / "tuned", tensors, suffix, **config))
    assert source.name == "tuned" and "LoRA" in source.origin and list(source.model) == ["h.1.q.weight"]
    A, B = factors(tensors, "h.1.q")
    tensor = source.model["h.1.q.weight"]
    assert tensor.shape == (30, 20) and tensor.dtype.name == "float64"
    np.testing.assert_allclose(np.asarray(tensor), scale * B @ A, rtol=1e-12, atol=1e-12)
    left, right = tensor.factors
    assert left.shape == (30, 4) and right.shape == (4, 20)
    np.testing.assert_allclose(left @ right, np.asarray(tensor))


def test_ranks_by_pattern(tmp_path):
    tensors = linear("h.0.q", 30, 20) | linear("h.1.q", 30, 20, r=2)
    for rslora, root in ((False, 2), (True, math.sqrt(2))):
        model = open_model(adapter(tmp_path / "a", tensors, rank_pattern={"h.1.q": 2}, use_rslora=rslora)).model
        A, B = factors(tensors, "h.1.q")
        np.testing.assert_allclose(np.asarray(model["h.1.q.weight"]), 16 / root * B @ A, rtol=1e-5, atol=1e-5)


def test_layers_are_measured_by_name(tmp_path):
    source = open_model(adapter(tmp_path / "a", linear("h.1.q", 30, 20) | linear("h.0.q", 30, 20)))
    found, skipped = find_layers(source.model)
    assert [layer.name for layer in found] == ["h.0.q", "h.1.q"] and not skipped
    options = SpectralOptions(device="cpu", min_evals=4)
    rows = raylab.analyze(source.model, ("norms",), options).to_pylist()
    evals = low_rank.eigenvalues(*source.model["h.0.q.weight"].factors)
    assert rows[0]["spectral_norm"] == pytest.approx(evals[-1], rel=1e-5)
    assert rows[0]["matrix_rank"] == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_of_factors(tmp_path, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in linear("q", 30, 20).items()}
    tensor = open_model(adapter(tmp_path / "a", tensors)).model["q.weight"]
    A, B = factors(tensors, "q")
    np.testing.assert_allclose(np.asarray(tensor), 4 * B @ A, rtol=1e-12, atol=1e-12)


def embedding():
    return {f"{PREFIX}wte.lora_embedding_A": draw(4, 50), f"{PREFIX}wte.lora_embedding_B": draw(20, 4)}


def conv(out=12, into=6, size=3, r=4):
    return {
        f"{PREFIX}stem.lora_A.weight": draw(r, into, size, size),
        f"{PREFIX}stem.lora_B.weight": draw(out, r, 1, 1),
    }


def test_every_kind_of_layer_merged_as_torch_computes_it(tmp_path):
    """The forward pass of W + Delta W is that of W plus the scaled B(A(x)) that PEFT's forward adds."""
    module = torch.nn.ModuleDict(
        {"q": torch.nn.Linear(20, 30), "wte": torch.nn.Embedding(50, 20), "stem": torch.nn.Conv2d(6, 12, 3, bias=False)}
    )
    tensors = linear("q", 30, 20) | embedding() | conv()
    merged = open_model(module, adapter=adapter(tmp_path / "a", tensors)).model
    x, tokens, image = draw(7, 20), torch.arange(50), draw(2, 6, 9, 9)
    with torch.no_grad():
        A, B = (tensors[f"{PREFIX}q.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(merged["q"](x), module["q"](x) + 4 * x @ A.T @ B.T, rtol=1e-4, atol=1e-4)
        A, B = (tensors[f"{PREFIX}wte.lora_embedding_{side}"] for side in "AB")
        expected = module["wte"](tokens) + 4 * torch.nn.functional.embedding(tokens, A.T) @ B.T
        torch.testing.assert_close(merged["wte"](tokens), expected, rtol=1e-4, atol=1e-4)
        A, B = (tensors[f"{PREFIX}stem.lora_{side}.weight"] for side in "AB")
        conv2d = torch.nn.functional.conv2d
        expected = module["stem"](image) + 4 * conv2d(conv2d(image, A), B)
        torch.testing.assert_close(merged["stem"](image), expected, rtol=1e-3, atol=1e-3)


def test_the_factors_of_embeddings_and_convolutions(tmp_path):
    model = open_model(adapter(tmp_path / "a", embedding() | conv())).model
    for name, shape, folded in [("wte.weight", (50, 20), (50, 20)), ("stem.weight", (12, 6, 3, 3), (12, 54))]:
        left, right = model[name].factors
        assert model[name].shape == shape
        np.testing.assert_allclose((left @ right), np.asarray(model[name]).reshape(folded), rtol=1e-6)


@pytest.mark.parametrize("flag", [True, False])
def test_transposed_linear_layers_of_hugging_face(tmp_path, flag):
    """Conv1D stores (in, out). PEFT goes by the layer's class; where the shape tells, so do we, whatever the flag."""
    tensors = linear("transformer.h.0.attn.c_attn", 60, 20)
    base = {"transformer.h.0.attn.c_attn.weight": draw(20, 60)}
    merged = open_model(base, adapter=adapter(tmp_path / "a", tensors, fan_in_fan_out=flag)).model
    A, B = factors(tensors, "transformer.h.0.attn.c_attn")
    expected = base["transformer.h.0.attn.c_attn.weight"] + 4 * (B @ A).T
    np.testing.assert_allclose(np.asarray(merged["transformer.h.0.attn.c_attn.weight"]), expected, rtol=1e-5, atol=1e-5)


def test_a_square_layer_goes_by_the_flag(tmp_path):
    tensors, base = linear("c_proj", 20, 20), {"c_proj.weight": draw(20, 20)}
    A, B = factors(tensors, "c_proj")
    for flag, update in ((True, (B @ A).T), (False, B @ A)):
        merged = open_model(base, adapter=adapter(tmp_path / "a", tensors, fan_in_fan_out=flag)).model
        np.testing.assert_allclose(np.asarray(merged["c_proj.weight"]), base["c_proj.weight"] + 4 * update, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("h.0.q", "h.0.q.weight"),
        ("transformer.h.0.q", "h.0.q.weight"),
        ("h.0.q", "transformer.h.0.q.weight"),
        ("model.layers.0.q", "model.language_model.layers.0.q.weight"),
        ("layers.0.q", "model.language_model.layers.0.q.weight"),
    ],
)
def test_names_of_base_and_adapter(tmp_path, layer, name):
    base = {name: draw(30, 20), "other.weight": draw(3, 3)}
    folder = adapter(tmp_path / "a", linear(layer, 30, 20))
    if layer.startswith("model.") and "language" in name:
        with pytest.raises(UserError, match=r"The base has no 'model\.layers\.0\.q\.weight'.*Did you mean"):
            open_model(base, adapter=folder)
        return
    merged = open_model(base, adapter=folder).model
    assert list(merged) == list(base)
    assert merged["other.weight"] is base["other.weight"]
    assert not np.allclose(np.asarray(merged[name]), base[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_merging_into_a_file_is_lazy_and_never_rounds_to_half(tmp_path, dtype):
    base = {"h.0.q.weight": draw(30, 20).to(dtype), "h.1.q.weight": draw(30, 20).to(dtype)}
    save_file(base, tmp_path / "base.safetensors")
    tensors = linear("h.0.q", 30, 20)
    source = open_model(tmp_path / "base.safetensors", adapter=adapter(tmp_path / "tuned", tensors))
    assert source.name == "base+tuned" and "tuned" in source.origin and "base.safetensors" in source.origin
    A, B = factors(tensors, "h.0.q")
    merged = source.model["h.0.q.weight"]
    assert merged.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    np.testing.assert_allclose(np.asarray(merged), base["h.0.q.weight"].double() + 4 * B @ A, rtol=1e-5, atol=1e-5)
    assert find_layers(source.model)[0][0].shape == (30, 20)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_a_quantised_base_is_refused(tmp_path, dtype):
    """Its numbers are no weights without their scales: W + scale B A would be nobody's."""
    save_file({"q.weight": draw(30, 20).to(dtype)}, tmp_path / "base.safetensors")
    folder = adapter(tmp_path / "a", linear("q", 30, 20))
    for base in (tmp_path / "base.safetensors", {"q.weight": draw(30, 20).to(dtype)}):
        with pytest.raises(UserError, match=r"'q.weight' is quantised in the base .*give a base in floating point"):
            open_model(base, adapter=folder)


def test_the_module_given_is_left_alone_and_ties_are_kept(tmp_path):
    module = torch.nn.ModuleDict({"wte": torch.nn.Embedding(50, 20), "head": torch.nn.Linear(20, 50, bias=False)})
    module["head"].weight = module["wte"].weight
    before = module["wte"].weight.clone()
    merged = open_model(module, adapter=adapter(tmp_path / "a", embedding())).model
    assert torch.equal(module["wte"].weight, before) and not torch.equal(merged["wte"].weight, before)
    assert merged["head"].weight is merged["wte"].weight


def test_modules_that_are_saved_whole(tmp_path):
    head = {f"{PREFIX}score.weight": draw(9, 20), f"{PREFIX}score.bias": draw(9)}
    folder = adapter(tmp_path / "a", linear("transformer.q", 30, 20) | head, modules_to_save=["score"])
    assert list(open_model(folder).model) == ["transformer.q.weight", "score.modules_to_save.weight"]
    for base in ({"q.weight": draw(30, 20)}, {"q.weight": draw(30, 20), "score.weight": draw(9, 20, seed=5)}):
        merged = open_model(base, adapter=folder).model
        np.testing.assert_array_equal(np.asarray(merged["score.weight"]), head[f"{PREFIX}score.weight"])


def test_digests(tmp_path):
    base, tensors = {"q.weight": draw(30, 20)}, linear("q", 30, 20)
    folder = adapter(tmp_path / "a", tensors)
    alone, both = open_model(folder).digest, open_model(base, adapter=folder).digest
    assert len({alone, both, open_model(base).digest}) == 3
    adapter(folder, tensors, inference_mode=True)  # says nothing about the numbers
    assert open_model(folder).digest == alone
    adapter(folder, tensors, lora_alpha=17)
    assert open_model(folder).digest != alone and open_model(base, adapter=folder).digest != both


def test_adapters_travel_by_path(tmp_path):
    save_file({"q.weight": draw(30, 20)}, tmp_path / "base.safetensors")
    folder = adapter(tmp_path / "a", linear("q", 30, 20))
    for source in (
        open_model(folder),
        open_model(tmp_path / "base.safetensors", adapter=folder),
        open_model({"q.weight": draw(30, 20)}, adapter=folder),
    ):
        back = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(np.asarray(back.model["q.weight"]), np.asarray(source.model["q.weight"]))
        assert back.digest == source.digest


BASE = {"q.weight": draw(30, 20)}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (linear("q", 30, 20), {"use_dora": True}, "use_dora, which is more than W"),
        (
            linear("q", 30, 20) | {f"{PREFIX}q.lora_magnitude_vector": draw(30)},
            {},
            "magnitude_vector.*more than W",
        ),
        (linear("q", 30, 20), {"target_parameters": ["experts"]}, "target_parameters, which is more"),
        (linear("q", 30, 20), {"peft_type": "LOHA"}, "kind LOHA, not LORA: merge it with peft"),
        (linear("q", 30, 20), {"init_lora_weights": "pissa"}, "init_lora_weights=pissa, which changes the base too"),
        (linear("q", 30, 20), {"r": 8}, r"A \[4, 20\] and B \[30, 4\], are none of rank r=8"),
        (linear("k", 30, 20), {}, r"The base has no 'k.weight', which .* adapts\. Did you mean 'q\.weight'"),
        (linear("q", 31, 20), {}, r"shape \[30, 20\] in the base and \[31, 20\]"),
        ({f"{PREFIX}q.lora_A.weight": draw(4, 20)}, {}, "lora_A of 'q' without the other factor"),
        ({f"{PREFIX}q.weight": draw(4, 20)}, {}, "holds no lora_A and lora_B"),
    ],
)
def test_what_cannot_be_merged_is_one_line(tmp_path, tensors, config, message):
    with pytest.raises(UserError, match=message) as caught:
        open_model(BASE, adapter=adapter(tmp_path / "a", tensors, **config))
    assert "\n" not in str(caught.value)


def test_what_is_no_adapter(tmp_path):
    save_file({"q.weight": draw(30, 20)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"has no adapter_config\.json: give the folder of a LoRA adapter"):
        open_model(BASE, adapter=tmp_path)
    with pytest.raises(UserError, match="no file or folder"):
        open_model(BASE, adapter=tmp_path / "nowhere")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors"):
        open_model(tmp_path)
