"""Kinds, seen from outside: what becomes of a tensor of a certain class, name and shape."""

import numpy as np
import pytest
import torch
from torch import nn

from raylab.layers import find_layers


def kinds(model):
    found, skipped = find_layers(model)
    return {layer.name: layer.kind for layer in found} | {item.layer.name: item.reason for item in skipped}


@pytest.mark.parametrize(
    ("module", "kind", "shape"),
    [
        (nn.Linear(8, 9), "linear", (9, 8)),
        (nn.Embedding(8, 9), "embedding", (8, 9)),
        (nn.EmbeddingBag(8, 9), "embedding", (8, 9)),
        (nn.Bilinear(5, 6, 7), "bilinear", (7, 5, 6)),
        (nn.Conv1d(8, 9, 3, groups=1), "conv1d", (9, 8, 3)),
        (nn.Conv2d(8, 9, 1), "conv2d", (9, 8, 1, 1)),
        (nn.Conv3d(8, 9, 3), "conv3d", (9, 8, 3, 3, 3)),
        (nn.ConvTranspose1d(8, 9, 3), "conv_transpose1d", (8, 9, 3)),
        (nn.ConvTranspose2d(8, 12, 3, groups=4), "conv_transpose2d", (8, 3, 3, 3)),
        (nn.ConvTranspose3d(8, 9, 3), "conv_transpose3d", (8, 9, 3, 3, 3)),
        (nn.LazyLinear(9), "linear", (9, 8)),
    ],
    ids=str,
)
def test_the_modules_of_torch(module, kind, shape):
    if isinstance(module, nn.LazyLinear):
        module(torch.zeros(1, 8))
    found, skipped = find_layers(nn.Sequential(module))
    assert [(layer.name, layer.kind, layer.shape, layer.groups) for layer in found] == [
        ("0", kind, shape, getattr(module, "groups", 1))
    ]
    assert not skipped


@pytest.mark.parametrize("module", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks(module):
    model = module(8, 9, num_layers=2, bidirectional=True)
    kind = module.__name__.lower()
    ends = ("l0", "l0_reverse", "l1", "l1_reverse")
    assert kinds(model) == {f"weight_{part}_{end}": kind for end in ends for part in ("ih", "hh")}
    assert set(kinds(model.state_dict()).values()) == {"recurrent"}
    assert kinds(getattr(nn, f"{module.__name__}Cell")(8, 9)) == {"weight_ih": kind, "weight_hh": kind}


def test_projected_lstm():
    assert kinds(nn.LSTM(8, 9, proj_size=3))["weight_hr_l0"] == "lstm"


def test_attention_of_torch():
    assert kinds(nn.MultiheadAttention(8, 2)) == {"in_proj_weight": "qkv", "out_proj": "linear"}
    separate = nn.MultiheadAttention(8, 2, kdim=6, vdim=5, add_bias_kv=True)
    vector = "a vector: all of its dimensions but one are 1"
    assert kinds(separate) == {
        **{f"{name}_proj_weight": "linear" for name in "qkv"},
        **{"bias_k": vector, "bias_v": vector, "out_proj": "linear"},
    }


def test_own_parameters():
    model = nn.Module()
    for name, shape in {
        "text_projection": (8, 9),
        "pos_embed": (1, 8, 9),
        "table": (3, 1, 1, 9),
        "cls_token": (1, 1, 9),
        "queries": (2, 8, 9),
    }.items():
        model.register_parameter(name, nn.Parameter(torch.ones(shape)))
    model.fc = nn.Linear(8, 9)
    expected = {
        "text_projection": "matrix",
        "pos_embed": "matrix",
        "table": "matrix",
        "cls_token": "a vector: all of its dimensions but one are 1",
        "queries": "3 dimensions, and by its name no convolution and no experts",
        "fc": "linear",
    }
    assert kinds(model) == expected
    assert kinds(model.state_dict()) == {**expected, "text_projection": "linear"}
    shapes = {layer.name: layer.shape for layer in find_layers(model)[0]}
    assert (shapes["pos_embed"], shapes["table"]) == ((8, 9), (3, 9))


def test_a_mapping_by_names_and_shapes():
    shapes = {
        "wte.weight": (9, 8),
        "model.embed_tokens.weight": (9, 8),
        "bert.embeddings.word_embeddings.weight": (9, 8),
        "patch_embed.proj.weight": (9, 3, 4, 4),
        "fc.weight": (9, 8),
        "time.weight": (9, 8, 1),
        "volume.weight": (9, 8, 2, 2, 2),
        "moe.input_linear.weight": (3, 9, 8),
        "mlp.output_linear.weight": (3, 9, 8),
        "block_sparse_moe.experts.0.w1.weight": (9, 8),
        "experts.down_proj_bias": (3, 8),
        "six.weight": (2, 2, 2, 2, 2, 2),
    }
    assert kinds({name: np.ones(shape) for name, shape in shapes.items()}) == {
        "wte": "embedding",
        "model.embed_tokens": "embedding",
        "bert.embeddings.word_embeddings": "embedding",
        "patch_embed.proj": "conv2d",
        "fc": "linear",
        "time": "conv1d",
        "volume": "conv3d",
        **{f"moe.input_linear[{i}]": "expert" for i in range(3)},
        **{f"mlp.output_linear[{i}]": "expert" for i in range(3)},
        "block_sparse_moe.experts.0.w1": "linear",
        "experts.down_proj_bias": "biases of experts: a vector each",
        "six": "6 dimensions, and by its name no convolution and no experts",
    }


def test_a_mapping_without_weight_in_its_names():
    shapes = {"a": (9, 8), "b": (9, 8, 3), "c": (9, 8, 3, 3), "d": (1, 9, 8)}
    assert kinds({name: np.ones(shape) for name, shape in shapes.items()}) == {
        **{"a": "linear", "b": "conv1d", "c": "conv2d", "d": "matrix"}
    }


def test_depthwise_is_seen_in_a_mapping():
    found, _ = find_layers({"a.weight": np.ones((9, 1, 3, 3)), "b.weight": np.ones((9, 3, 3, 3))})
    assert [layer.groups for layer in found] == [9, 1]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bits_need_scales_that_we_do_not_have(dtype):
    assert kinds({"w": torch.zeros(9, 9, dtype=getattr(torch, dtype))}) == {
        "w": f"dtype {dtype} is quantised: its scales are elsewhere"
    }
