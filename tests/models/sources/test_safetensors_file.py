"""Against the safetensors library and torch, which we did not write."""

import json
import pickle
import struct

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from raylab.errors import UserError
from raylab.layers import find_layers
from raylab.models.sources.safetensors_file import open_files

TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip
WIDENED = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def expected(tensor):
    return (tensor.float() if tensor.dtype in WIDENED else tensor).numpy()


def drawn(dtype, shape=(6, 5)):
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))).to(dtype)


@pytest.fixture
def every_type(tmp_path):
    tensors = {str(dtype).removeprefix("torch."): drawn(dtype) for dtype in TYPES}
    save_file(tensors, tmp_path / "every.safetensors", metadata={"format": "pt"})
    return tmp_path / "every.safetensors", tensors


def test_every_type_is_read_as_torch_reads_it(every_type):
    path, tensors = every_type
    opened = open_files([path])
    assert opened.keys() == tensors.keys()
    for name, tensor in tensors.items():
        array = np.asarray(opened[name])
        assert opened[name].dtype.name == name
        assert array.dtype == expected(tensor).dtype and array.dtype.isnative
        np.testing.assert_array_equal(array, expected(tensor))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_all_16_bit_patterns_survive(tmp_path, dtype):
    bits = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)
    save_file({"w": bits}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(np.asarray(open_files([tmp_path / "w.safetensors"])["w"]), expected(bits))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_all_8_bit_patterns_are_torchs_values(tmp_path, dtype):
    bits = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)
    save_file({"w": bits}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(np.asarray(open_files([tmp_path / "w.safetensors"])["w"]), bits.float().numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float64])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (2, 5), (6, 6), (0, 6)])
def test_rows(tmp_path, dtype, start, stop):
    tensor = drawn(dtype, (6, 5, 2))
    save_file({"w": tensor}, tmp_path / "w.safetensors")
    rows = open_files([tmp_path / "w.safetensors"])["w"].rows(start, stop)
    np.testing.assert_array_equal(rows, expected(tensor)[start:stop])


def test_rows_that_are_not_there(every_type):
    tensor = open_files([every_type[0]])["float32"]
    for start, stop in [(-1, 2), (3, 2), (0, 7)]:
        with pytest.raises(IndexError, match=r"no rows"):
            tensor.rows(start, stop)


def test_scalars_and_empty_tensors(tmp_path):
    save_file({"one": torch.tensor(2.5), "none": torch.zeros(0, 4)}, tmp_path / "w.safetensors")
    opened = open_files([tmp_path / "w.safetensors"])
    assert np.asarray(opened["one"]) == 2.5 and np.asarray(opened["one"]).shape == ()
    assert np.asarray(opened["none"]).shape == (0, 4)


def test_packed_types_are_listed_but_not_read(tmp_path):
    header = json.dumps({"w": {"dtype": "F4", "shape": [4, 4], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    opened = open_files([tmp_path / "w.safetensors"])
    found, skipped = find_layers(opened)
    assert not found and "not floating point" in skipped[0].reason
    with pytest.raises(UserError, match="does not unpack"):
        np.asarray(opened["w"])


def test_nothing_is_kept(every_type):
    tensor = open_files([every_type[0]])["float32"]
    first = np.asarray(tensor)
    first[:] = 0
    assert np.asarray(tensor).any()


def test_tensors_travel_by_their_path(every_type):
    path, tensors = every_type
    copy = pickle.loads(pickle.dumps(open_files([path])["bfloat16"]))
    np.testing.assert_array_equal(np.asarray(copy), expected(tensors["bfloat16"]))


def test_layers_come_in_natural_order(tmp_path):
    names = [f"h.{i}.fc.weight" for i in range(12)]
    save_file({name: torch.zeros(9, 9) for name in names}, tmp_path / "w.safetensors")
    opened = open_files([tmp_path / "w.safetensors"])
    assert list(opened) == names
    found, skipped = find_layers(opened)
    assert [layer.name for layer in found] == [name.removesuffix(".weight") for name in names] and not skipped


def test_a_tensor_in_two_files(tmp_path):
    for name in ("a", "b"):
        save_file({"w": torch.zeros(2, 2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"Both a.safetensors and .*b.safetensors hold 'w'"):
        open_files([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def written(path, header, data=bytes(32), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def changed(**b):
    return {**GOOD, "b": {**GOOD["b"], **b}}


BROKEN = {
    "nothing": b"",
    "a gap": changed(data_offsets=[25, 33]),
    "an overlap": changed(data_offsets=[20, 28]),
    "a size that is not the shape's": changed(shape=[5]),
    "out of bounds": changed(shape=[400], data_offsets=[24, 824]),
    "backwards": changed(data_offsets=[32, 24]),
    "negative": changed(data_offsets=[-8, 0]),
    "an unknown dtype": changed(dtype="F128"),
    "a fraction": changed(shape=[4.0]),
    "a text for a shape": changed(shape="4"),
    "no offsets": {**GOOD, "b": {"dtype": "BF16", "shape": [4]}},
    "a list": [],
    "no JSON": b"{oops",
    "no UTF-8": b'{"\xff": 1}',
    "too little for what lies there": {"a": GOOD["a"]},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, what):
    path = written(tmp_path / "w.safetensors", BROKEN[what])
    with pytest.raises(safetensors.SafetensorError):
        safetensors.safe_open(path, "numpy")
    with pytest.raises(UserError, match=r"w\.safetensors is no sound safetensors file: ") as caught:
        open_files([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [10**6, 10**12, 2**64 - 1])
def test_a_header_longer_than_the_file(tmp_path, length):
    path = written(tmp_path / "w.safetensors", GOOD, length=length)
    with pytest.raises(UserError, match="does not fit"):
        open_files([path])


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 200))
def test_a_file_cut_anywhere_is_noticed(tmp_path, cut):
    whole = written(tmp_path / "w.safetensors", GOOD).read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(UserError, match=r"cut\.safetensors is no sound"):
        open_files([path])


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = written(tmp_path / "w.safetensors", GOOD)
    tensor = open_files([path])["b"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"ends before 'b' does"):
        np.asarray(tensor)
    path.unlink()
    with pytest.raises(UserError, match=r"Cannot read 'b' from .*w\.safetensors"):
        np.asarray(tensor)


@pytest.mark.parametrize(
    "names",
    [
        ["wte", "wpe", "h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj", "h.10.attn.c_attn"],
        ["model.embed_tokens", *(f"model.layers.0.self_attn.{x}_proj" for x in "qkvo"), "model.layers.0.mlp.gate_proj",
         "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj", "model.layers.2.self_attn.q_proj", "lm_head"],
        ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "fc"],
        ["fc1", "fc2", "fc3", "fc10"],
        ["encoder.layers.0.fc1", "decoder.layers.0.fc1", "head"],
    ],
)  # fmt: skip
def test_layers_come_in_the_order_in_which_data_flow(names, tmp_path):
    save_file({f"{name}.weight": torch.ones(2, 2) for name in reversed(names)}, tmp_path / "m.safetensors")
    found = [name.removesuffix(".weight") for name in open_files([tmp_path / "m.safetensors"])]
    if "wte" in names:  # which of the two embeddings comes first, no name tells
        found[:2] = sorted(found[:2], reverse=True)
    assert found == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_is_a_copy_of_the_embedding_is_measured_once(dtype, tmp_path):
    embedding = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    other = embedding.clone()
    other[-1, -1] += 1
    for head, skipped in ((embedding.clone(), ["lm_head"]), (other, []), (embedding[:-1].clone(), [])):
        state = {"model.embed_tokens.weight": embedding, "h.0.fc.weight": embedding.clone(), "lm_head.weight": head}
        save_file(state, tmp_path / "m.safetensors")
        _, left_out = find_layers(open_files([tmp_path / "m.safetensors"]))
        assert [item.layer.name for item in left_out] == skipped
        assert not skipped or left_out[0].reason == "tied: the same tensor as model.embed_tokens"
