"""Parts against what the models themselves make of their fused tensors."""

import math
from collections import defaultdict

import pytest
import torch
from torch import nn

from raylab.layers import as_matrices, find_layers, weights
from raylab.types import SpectralOptions

SPLIT = SpectralOptions(split=True)
TINY = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 50}
PADS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def pieces(model, split=True):
    """The parts of each split tensor: name of the tensor -> label -> part."""
    options = SpectralOptions(split=split)
    tensors = weights(model, options)
    parts = defaultdict(dict)
    for layer in find_layers(model, options)[0]:
        if layer.name.endswith("]"):
            name, _, label = layer.name.partition("[")
            assert tuple(tensors[layer.name].shape) == layer.shape
            parts[name][label.removesuffix("]")] = tensors[layer.name].detach()
    return parts


@pytest.fixture
def attended(monkeypatch):
    """The queries, keys and values that reach torch's attention, (heads * size,) of the first token each."""
    caught = []
    original = nn.functional.scaled_dot_product_attention

    def spy(query, key, value, *args, **kwargs):
        caught.append([tensor[0, :, 0].flatten() for tensor in (query, key, value)])
        return original(query, key, value, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    return caught


def language_model(name):
    transformers = pytest.importorskip("transformers")
    small = {"num_key_value_heads": 2, **PADS}
    config = {
        "gpt2": lambda: transformers.GPT2Config(n_layer=1, n_embd=32, n_head=4, vocab_size=50, n_positions=8, **PADS),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**TINY, **PADS),
        "phi3": lambda: transformers.Phi3Config(**TINY, **small),
        "bloom": lambda: transformers.BloomConfig(n_layer=1, hidden_size=32, n_head=4, vocab_size=50, **PADS),
        "falcon": lambda: transformers.FalconConfig(**TINY, multi_query=False, **PADS),
        "codegen": lambda: transformers.CodeGenConfig(
            n_layer=1, n_embd=32, n_head=4, n_ctx=8, n_positions=8, rotary_dim=4, vocab_size=50, **PADS
        ),
        "mixtral": lambda: transformers.MixtralConfig(**TINY, **small, num_local_experts=3),
        "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
            **TINY, **small, num_experts=3, moe_intermediate_size=24, head_dim=8
        ),
        "gpt_oss": lambda: transformers.GptOssConfig(
            **TINY,
            **small,
            num_local_experts=3,
            head_dim=8,
            max_position_embeddings=64,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ),
        "deepseek": lambda: transformers.DeepseekV2Config(
            **TINY, **PADS, n_routed_experts=4, first_k_dense_replace=0, moe_intermediate_size=24, kv_lora_rank=16
        ),
    }[name]()
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config, attn_implementation="eager" if name == "gpt_oss" else None).eval()


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("gpt2", "h.0.attn.c_attn"),
        ("gpt_neox", "layers.0.attention.query_key_value"),
        ("phi3", "layers.0.self_attn.qkv_proj"),
        ("falcon", "h.0.self_attention.query_key_value"),
    ],
)
def test_queries_keys_and_values_are_those_of_the_forward_pass(name, fused, attended):
    model = language_model(name)
    module = model.get_submodule(fused)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    inputs = []
    module.register_forward_pre_hook(lambda module, args: inputs.append(args[0][0, 0]))
    with torch.no_grad():
        model(torch.tensor([[7]]))  # one token: its rotation is none
    parts = pieces(model)[fused]
    for label, expected in zip("qkv", attended[0], strict=True):
        part = parts[label].T if name == "gpt2" else parts[label]
        ours = part @ inputs[0]
        if len(expected) > len(ours):  # keys repeated for the queries that share them
            expected = expected.reshape(2, 2, 8)[:, 0].flatten()
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_blooms_are_those_of_its_own_reshape():
    model = language_model("bloom")
    attention = model.h[0].self_attention
    fused = attention.query_key_value.weight.detach().T[None]  # what the identity gives: (1, in, 3 * width)
    theirs = attention._reshape(fused)
    ours = pieces(model)["h.0.self_attention.query_key_value"]
    for label, expected in zip("qkv", theirs, strict=True):
        torch.testing.assert_close(ours[label], expected[0].transpose(1, 2).reshape(32, 32), rtol=0, atol=0)


def test_torch_attention(attended):
    model = nn.MultiheadAttention(32, 4, bias=False).eval()
    x = torch.randn(1, 1, 32)
    with torch.no_grad():
        model.requires_grad_(True)(x, 2 * x, 3 * x, need_weights=False)
    for label, times, expected in zip("qkv", (1, 2, 3), attended[0], strict=True):
        torch.testing.assert_close(pieces(model)["in_proj_weight"][label] @ x[0, 0] * times, expected)


def test_timms_attention(attended):
    timm = pytest.importorskip("timm")
    attention = timm.layers.Attention(32, num_heads=4, qkv_bias=False).eval()
    model = nn.ModuleDict({"attn": attention})
    x = torch.randn(1, 1, 32)
    with torch.no_grad():
        attention(x)
    for label, expected in zip("qkv", attended[0], strict=True):
        torch.testing.assert_close(pieces(model)["attn.qkv"][label] @ x[0, 0], expected)


@pytest.mark.parametrize("head_first", [True, False])
def test_timms_attention_of_either_order(head_first, attended):
    timm = pytest.importorskip("timm")
    from timm.models.maxxvit import AttentionCl

    assert timm
    attention = AttentionCl(32, 32, dim_head=8, bias=False, head_first=head_first).eval()
    x = torch.randn(1, 1, 1, 32)
    with torch.no_grad():
        attention(x)
    for label, expected in zip("qkv", attended[0], strict=True):
        torch.testing.assert_close(pieces(attention)["qkv"][label] @ x.flatten(), expected)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("proj_size", [0, 5])
def test_the_gates_of_an_lstm(proj_size):
    model = nn.LSTM(6, 8, bias=False, proj_size=proj_size)
    x, h, c = torch.randn(1, 6), torch.randn(1, proj_size or 8), torch.randn(1, 8)
    into, back = (pieces(model)[f"weight_{part}_l0"] for part in ("ih", "hh"))
    i, f, g, o = (x @ into[gate].T + h @ back[gate].T for gate in "ifgo")
    cell = f.sigmoid() * c + i.sigmoid() * g.tanh()
    out = o.sigmoid() * cell.tanh()
    if proj_size:
        out = out @ model.weight_hr_l0.T
        assert "weight_hr_l0" in weights(model, SPLIT)
    torch.testing.assert_close(model(x, (h, c))[0], out)


def test_the_gates_of_a_gru():
    model = nn.GRU(6, 8, bias=False)
    x, h = torch.randn(1, 6), torch.randn(1, 8)
    into, back = (pieces(model)[f"weight_{part}_l0"] for part in ("ih", "hh"))
    r, z = ((x @ into[gate].T + h @ back[gate].T).sigmoid() for gate in "rz")
    new = (x @ into["n"].T + r * (h @ back["n"].T)).tanh()
    torch.testing.assert_close(model(x, h)[0], (1 - z) * new + z * h)


def experts_of(model):
    name = next(name for name, module in model.named_modules() if type(module).__name__.endswith("Experts"))
    return name, model.get_submodule(name)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek"])
def test_experts_and_their_gates(name):
    model = language_model(name)
    path, module = experts_of(model)
    parts = pieces(model)
    down = parts[f"{path}.down_proj"]
    x = torch.randn(1, 32)
    for expert in range(len(down)):
        gate, up = (parts[f"{path}.gate_up_proj"][f"{expert}][{part}"] for part in ("gate", "up"))
        with torch.no_grad():
            theirs = module(x, torch.tensor([[expert]]), torch.ones(1, 1))
            ours = (nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down[str(expert)].T
        torch.testing.assert_close(ours, theirs)


def test_experts_of_gpt_oss_lie_transposed_and_take_turns():
    model = language_model("gpt_oss")
    path, module = experts_of(model)
    parts = pieces(model)
    for expert in range(3):
        fused = module.gate_up_proj[expert]
        gate, up = (parts[f"{path}.gate_up_proj"][f"{expert}][{part}"] for part in ("gate", "up"))
        gated = gate.clamp(max=module.limit)
        ours = (up.clamp(-module.limit, module.limit) + 1) * gated * torch.sigmoid(gated * module.alpha)
        torch.testing.assert_close(ours, module._apply_gate(fused))


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_experts_are_layers_without_asking(name):
    model = language_model(name)
    path, module = experts_of(model)
    experts = pieces(model, split=False)[f"{path}.down_proj"]
    assert list(experts) == ["0", "1", "2"]
    assert all(torch.equal(experts[str(i)], module.down_proj[i]) for i in range(3))
    assert experts["1"].data_ptr() == module.down_proj[1].data_ptr()  # a view


def test_minimaxs_projection_goes_head_by_head_and_the_next_one_stays_whole():
    transformers = pytest.importorskip("transformers")
    options = {"num_key_value_heads": 2, "num_local_experts": 3, "layer_types": ["linear_attention"], "block_size": 8}
    model = transformers.AutoModel.from_config(transformers.MiniMaxConfig(**TINY, **PADS, **options, head_dim=8))
    attention = model.layers[0].self_attn
    fused = attention.qkv_proj.weight.detach().T.reshape(32, 4, 24)  # heads, and q, k and v of each: as in its forward
    parts = pieces(model)
    for label, expected in zip("qkv", fused.split(8, dim=2), strict=True):
        assert torch.equal(parts["layers.0.self_attn.qkv_proj"][label], expected.reshape(32, 32).T)
    assert "layers.0.self_attn.out_proj" in weights(model, SPLIT)


def test_experts_of_llama4_lie_transposed_in_halves():
    transformers = pytest.importorskip("transformers")
    options = {"num_key_value_heads": 2, "num_local_experts": 3, "head_dim": 8, "intermediate_size_mlp": 40}
    model = transformers.AutoModel.from_config(transformers.Llama4TextConfig(**TINY, **PADS, **options))
    path, module = experts_of(model)
    nn.init.normal_(module.gate_up_proj)
    for expert in range(3):
        for label, expected in zip(("gate", "up"), module.gate_up_proj[expert].chunk(2, dim=-1), strict=True):
            assert torch.equal(pieces(model)[f"{path}.gate_up_proj"][f"{expert}][{label}"], expected)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3", "mixtral", "gpt_oss"])
def test_parts_hold_every_weight_once(name):
    model = language_model(name)
    stored = {name: tensor for name, tensor in model.named_parameters() if tensor.ndim >= 2}
    values = defaultdict(list)
    tensors = weights(model, SPLIT)
    for layer in find_layers(model, SPLIT)[0]:
        values[layer.parameter].append(tensors[layer.name].detach().flatten())
    for parameter, parts in values.items():
        ours, theirs = torch.cat(parts).sort().values, stored[parameter].detach().flatten().sort().values
        assert torch.equal(ours, theirs), parameter


def test_what_cannot_be_told_stays_whole():
    assert "h.0.attn.qkv_proj" in weights(language_model("codegen"), SPLIT)
    neox = language_model("gpt_neox").state_dict()
    assert "layers.0.attention.query_key_value" in weights(neox, SPLIT)
    mixtral = language_model("mixtral").state_dict()
    assert any(name.endswith("experts.gate_up_proj[0]") for name in weights(mixtral, SPLIT))
    odd = nn.ModuleDict({"qkv": nn.Linear(10, 31)})
    assert "qkv" in weights(odd, SPLIT)


def test_a_state_dict_is_split_where_names_and_shapes_suffice():
    gpt2 = language_model("gpt2")
    for label, part in pieces(gpt2)["h.0.attn.c_attn"].items():
        assert torch.equal(part, pieces(gpt2.state_dict())["h.0.attn.c_attn"][label])
    attention = nn.MultiheadAttention(8, 2)
    assert list(pieces(attention.state_dict())["in_proj_weight"]) == ["q", "k", "v"]


def test_a_part_is_a_layer_like_any_other():
    model = nn.MultiheadAttention(8, 2)
    layer = find_layers(model, SPLIT)[0][1]
    assert (layer.name, layer.kind, layer.shape) == ("in_proj_weight[k]", "qkv", (8, 8))
    matrix = as_matrices(weights(model, SPLIT)[layer.name], layer)[0]
    assert math.isclose(matrix.sum(), model.in_proj_weight[8:16].sum().item(), rel_tol=1e-5, abs_tol=1e-6)
