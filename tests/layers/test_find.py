import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from raylab.errors import UserError
from raylab.layers import as_matrices, find_layers, select, split_by_size, weights
from raylab.types import Layer, SpectralOptions


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(16, 2)
        self.queries = nn.Parameter(torch.zeros(4, 5, 6))
        self.fc = nn.Linear(16, 10)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight


def test_layers_in_the_order_of_the_model():
    found, _ = find_layers(Model())
    assert [(layer.name, layer.kind, layer.shape) for layer in found] == [
        ("embedding", "embedding", (50, 16)),
        ("conv", "conv2d", (8, 3, 3, 3)),
        ("attention.in_proj_weight", "qkv", (48, 16)),
        ("attention.out_proj", "linear", (16, 16)),
        ("fc", "linear", (10, 16)),
    ]
    indices = [layer.index for layer in found]
    assert indices == sorted(indices)


def test_what_is_left_out_has_a_reason():
    _, skipped = find_layers(Model())
    assert {item.layer.name: item.reason for item in skipped} == {
        "queries": "3 dimensions, and by its name no convolution and no experts",
        "head": "tied: the same tensor as embedding",
    }


def test_the_weights_by_name():
    model = Model()
    tensors = weights(model)
    assert tensors["fc"] is model.fc.weight
    assert tensors["attention.in_proj_weight"] is model.attention.in_proj_weight


def test_a_subclass_is_its_parents_kind():
    class Scaled(nn.Linear):
        pass

    found, _ = find_layers(nn.Sequential(Scaled(4, 5)))
    assert [layer.kind for layer in found] == ["linear"]


def test_a_lone_layer_is_a_model():
    found, _ = find_layers(nn.Linear(4, 5))
    assert [(layer.name, layer.shape) for layer in found] == [("weight", (5, 4))]


@pytest.mark.parametrize("convert", [lambda tensor: tensor, lambda tensor: tensor.numpy()])
def test_a_state_dict(convert):
    state = {name: convert(tensor) for name, tensor in Model().state_dict().items()}
    found, skipped = find_layers(state)
    assert [layer.name for layer in found if layer.kind == "conv2d"] == ["conv"]
    assert {"embedding", "fc", "attention.in_proj_weight"} <= {layer.name for layer in found}
    assert "queries" in {item.layer.name for item in skipped}
    assert not any("bias" in layer.name or "norm" in layer.name for layer in found)


def test_tensors_that_are_no_real_weights_are_left_out_with_their_dtype():
    torches = (torch.int64, torch.bool, torch.uint8, torch.complex64)
    state = {f"torch.{dtype}": torch.zeros(9, 9, dtype=dtype) for dtype in torches}
    state |= {f"numpy.{name}": np.zeros((9, 9), name) for name in ("int64", "bool", "complex128", ">i4")}
    found, skipped = find_layers(state)
    assert not found
    reasons = [item.reason for item in skipped]
    names = ("int64", "bool", "uint8", "complex64", "int64", "bool", "complex128", "int32")
    assert reasons == [f"dtype {name} is not floating point" for name in names]


def test_floating_tensors_of_every_width_are_layers():
    torches = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    state = {f"torch.{dtype}": torch.zeros(9, 9, dtype=dtype) for dtype in torches}
    state |= {f"numpy.{name}": np.zeros((9, 9), name) for name in ("float16", "float32", "float64", ">f4")}
    found, skipped = find_layers(state)
    assert len(found) == 8 and not skipped


@pytest.mark.parametrize("convert", [lambda tensor: tensor, lambda tensor: tensor.numpy()])
def test_tied_tensors_of_a_state_dict_count_once(convert):
    _, skipped = find_layers({name: convert(tensor) for name, tensor in Model().state_dict().items()})
    assert [item.layer.name for item in skipped if "tied" in item.reason] == ["head"]


def test_equal_arrays_are_not_tied():
    found, skipped = find_layers({"a": np.zeros((10, 10)), "b": np.zeros((10, 10))})
    assert len(found) == 2
    assert not skipped


def test_two_tensors_of_one_layer_name_are_told_apart():
    """Neither is measured with the weights of the other."""
    model = {"fc": np.zeros((10, 10)), "fc.weight": np.ones((10, 10)), 1: np.ones((9, 9))}
    found, _ = find_layers(model)
    assert [(layer.name, layer.parameter) for layer in found] == [("fc", "fc"), ("fc (2)", "fc.weight"), ("1", "1")]
    tensors = weights(model)
    assert not tensors["fc"].any() and tensors["fc (2)"].all()


def test_what_is_no_model():
    with pytest.raises(UserError, match="not list"):
        find_layers([1, 2])


NAMES = ["fc1", "fc2", "head", "block.0.fc", "c_attn[q]", "experts[1]"]
NAMED = [Layer(name, i, "linear", (20, 10)) for i, name in enumerate(NAMES)]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*"], [layer.name for layer in NAMED]),
        (["fc*"], ["fc1", "fc2"]),
        (["head", "fc1"], ["fc1", "head"]),
        (["*.fc"], ["block.0.fc"]),
        (["fc[2-9]"], ["fc2"]),
        (["*c_attn[q]"], ["c_attn[q]"]),
        (["experts[[]*"], ["experts[1]"]),
        (["experts[1]"], ["experts[1]"]),
    ],
)
def test_selection_keeps_the_order_of_the_model(patterns, names):
    assert [layer.name for layer in select(NAMED, patterns)] == names


def test_a_pattern_that_matches_nothing():
    with pytest.raises(UserError, match=r"'fc3' matches no layer. Did you mean 'fc[12]'\? Available: block.0.fc,"):
        select(NAMED, ["head", "fc3"])


@pytest.mark.parametrize(
    ("shape", "kind", "options", "reason"),
    [
        ((7, 100), "linear", {}, "7 eigenvalues are fewer than min_evals=8"),
        ((8, 100), "linear", {}, None),
        ((4, 2, 2, 2), "conv2d", {}, None),
        ((4, 2, 2, 2), "conv2d", {"conv": "slices"}, "2 eigenvalues are fewer than min_evals=8"),
        ((4, 200, 2, 2), "conv2d", {"conv": "reshape"}, "4 eigenvalues are fewer than min_evals=8"),
        ((7, 100), "linear", {"min_evals": None}, None),
        ((50257, 768), "embedding", {}, None),
        ((50257, 768), "embedding", {"max_N": 50000}, "N=50257 is more than max_N=50000"),
        ((20000, 16000), "linear", {}, None),
        ((20000, 16000), "linear", {"max_evals": 15000}, "16000 eigenvalues are more than max_evals=15000"),
    ],
)
def test_the_limits_on_size(shape, kind, options, reason):
    kept, skipped = split_by_size([Layer("x", 0, kind, shape)], SpectralOptions(**options))
    assert [item.reason for item in skipped] == ([reason] if reason else [])
    assert len(kept) == (reason is None)


def test_what_cannot_be_read_is_skipped_and_says_why():
    model = nn.ModuleDict(
        {
            "lazy": nn.LazyLinear(5),
            "meta": nn.Linear(9, 9, device="meta"),
            "empty": nn.Embedding(0, 9),
            "fine": nn.Linear(9, 9),
        }
    )
    model["sparse"] = nn.Module()
    model["sparse"].weight = nn.Parameter(torch.eye(9).to_sparse())
    model["packed"] = nn.Module()  # as bitsandbytes keeps four bits
    model["packed"].weight = nn.Parameter(torch.zeros(40, 1, dtype=torch.uint8), requires_grad=False)
    model["buffer"] = nn.Module()  # as GPTQ
    model["buffer"].register_buffer("qweight", torch.zeros(9, 9, dtype=torch.int32))
    found, skipped = find_layers(model)
    assert [layer.name for layer in found] == ["fine"]
    assert {item.layer.name: item.reason for item in skipped} == {
        "lazy": "not initialised: run the model once on data",
        "meta": "on the meta device: without values",
        "empty": "empty: a dimension is 0",
        "sparse": "sparse: make it dense to measure it",
        "packed": "dtype uint8 is not floating point",
        "buffer.qweight": "dtype int32 is not floating point",
    }


def test_a_quantised_layer_of_torch_is_no_silent_gap():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(9, 9)), {nn.Linear})
    _, skipped = find_layers(model)
    assert [(item.layer.name, item.reason) for item in skipped] == [("0", "dtype qint8 is not floating point")]


def test_a_shared_module_is_tied_to_its_first_name():
    shared = nn.Linear(9, 9)
    found, skipped = find_layers(nn.Sequential(shared, shared))
    assert [layer.name for layer in found] == ["0"]
    assert [(item.layer.name, item.reason) for item in skipped] == [("1", "tied: the same tensor as 0")]


def test_layers_can_be_sent_and_looked_up():
    layer = find_layers(nn.Conv2d(8, 8, 3, groups=4))[0][0]
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert {layer: 1}[layer] == 1
    assert (layer.groups, layer.parameter) == (4, "weight")


class Lazy:
    """As a checkpoint's reader has it: a description, and numbers only when numpy asks."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, 0

    def __array__(self, dtype=None, copy=None):
        self.reads += 1
        return self.array


def test_lazy_tensors_are_not_read_while_finding():
    rng = np.random.default_rng(0)
    state = {
        "fc.weight": Lazy(rng.normal(size=(9, 8))),
        "mlp.experts.down_proj": Lazy(rng.normal(size=(2, 9, 8))),
        "pos_embed": Lazy(rng.normal(size=(1, 9, 8))),
        "conv.weight_g": Lazy(rng.normal(size=(9, 1, 1))),
        "conv.weight_v": Lazy(rng.normal(size=(9, 8, 3))),
    }
    found, _ = find_layers(state)
    tensors = weights(state)
    assert [layer.name for layer in found] == [
        "fc",
        "mlp.experts.down_proj[0]",
        "mlp.experts.down_proj[1]",
        "pos_embed",
        "conv",
    ]
    assert not any(tensor.reads for tensor in state.values())
    expert = as_matrices(tensors["mlp.experts.down_proj[1]"], found[2])
    np.testing.assert_array_equal(expert[0], state["mlp.experts.down_proj"].array[1])
    np.testing.assert_array_equal(as_matrices(tensors["pos_embed"], found[3])[0], state["pos_embed"].array[0])
    assert state["fc.weight"].reads == 0
