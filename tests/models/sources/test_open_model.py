import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import raylab
from raylab.errors import UserError
from raylab.models.sources import open_model
from raylab.types import SpectralOptions

RNG = np.random.default_rng(0)
TENSORS = {f"h.{i}.weight": RNG.normal(size=(30, 20)).astype(np.float32) for i in range(3)}


def module(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 10))


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_what_is_in_memory_passes_through():
    for model, name in [(module(), "Sequential"), (TENSORS, "state_dict")]:
        source = open_model(model)
        assert source.model is model and source.name == name and "in memory" in source.origin


def test_a_digest_of_whatever_a_checkpoint_holds():
    """What is no tensor, or has no bytes to read, is skipped or listed, and is no crash before that."""
    odd = {"epoch": 3, "note": None, "meta": torch.empty(3, 4, device="meta"), "sparse": torch.eye(3).to_sparse()}
    odd |= {"complex": torch.eye(3) + 1j, "none": np.zeros((0, 3)), "scalar": torch.tensor(2.0), 7: np.eye(2)}
    assert open_model(TENSORS | odd).digest == open_model(TENSORS | odd | {"epoch": 4}).digest
    assert open_model(TENSORS | odd).digest != open_model(TENSORS | odd | {"scalar": torch.tensor(3.0)}).digest
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.Linear(3, 3))
    assert open_model(lazy).digest != open_model(module()).digest


def test_the_numbers_are_those_of_the_arrays(file):
    options = SpectralOptions(device="cpu")
    assert raylab.analyze(open_model(file).model, options=options).equals(raylab.analyze(TENSORS, options=options))


def test_a_path_as_text_from_home(file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    assert list(open_model("~/m.safetensors").model) == list(TENSORS)


# digests ---------------------------------------------------------------------------------------------------------


def test_the_digest_is_of_the_content_alone(file, tmp_path):
    first = open_model(file).digest
    assert len(first) == 24 and int(first, 16) >= 0
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(file.read_bytes())
    os.utime(copy, (1, 1))
    assert open_model(copy).digest == first
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    assert open_model(copy).digest != first


def test_the_digest_of_shards_sees_every_shard(tmp_path):
    for i, (name, array) in enumerate(TENSORS.items()):
        save_file({name: array}, tmp_path / f"model-{i}.safetensors")
    first = open_model(tmp_path).digest
    for i, (name, array) in enumerate(TENSORS.items()):
        save_file({name: array + 1}, tmp_path / f"model-{i}.safetensors")
        assert open_model(tmp_path).digest != first
        save_file({name: array}, tmp_path / f"model-{i}.safetensors")
    assert open_model(tmp_path).digest == first


def test_the_digest_of_a_module():
    first = open_model(module()).digest
    assert open_model(module()).digest == first
    assert open_model(module(seed=1)).digest != first
    assert open_model(module().bfloat16()).digest != first
    renamed = torch.nn.Sequential(torch.nn.Identity(), *module())
    assert open_model(renamed).digest != first


def test_the_digest_of_a_mapping():
    first = open_model(TENSORS).digest
    assert open_model(dict(reversed(TENSORS.items()))).digest == first
    assert open_model({name: torch.from_numpy(array) for name, array in TENSORS.items()}).digest == first
    assert open_model({name: array.reshape(20, 30) for name, array in TENSORS.items()}).digest != first
    assert open_model({name: array.view(np.int32) for name, array in TENSORS.items()}).digest != first


def test_the_digest_is_computed_when_asked_for_and_once(file):
    source = open_model(file)
    assert "digest" not in vars(source)
    first = source.digest
    file.unlink()
    assert source.digest == first


# pickling --------------------------------------------------------------------------------------------------------


def test_a_source_travels_as_its_path(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    source = open_model(file.name)
    sent = pickle.dumps(source)
    assert len(sent) < 1000
    monkeypatch.chdir("/")
    back = pickle.loads(sent)
    np.testing.assert_array_equal(np.asarray(back.model["h.0.weight"]), TENSORS["h.0.weight"])
    assert (back.name, back.digest) == (source.name, source.digest)


def test_a_known_digest_travels_along(file):
    source = open_model(file)
    first = source.digest
    assert vars(pickle.loads(pickle.dumps(source)))["digest"] == first


def test_a_module_travels_as_itself():
    source = open_model(module())
    assert pickle.loads(pickle.dumps(source)).digest == source.digest


# bad input -------------------------------------------------------------------------------------------------------


def test_a_misspelt_path(file):
    with pytest.raises(UserError, match=r"no file or folder .*n\.safetensors\. Did you mean '.*m\.safetensors'\?"):
        open_model(file.parent / "n.safetensors")
    with pytest.raises(UserError, match=r"There is no folder .*nowhere either"):
        open_model(str(file.parent / "nowhere" / "m.safetensors"))


def test_a_misspelt_folder_may_be_a_name_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "my_model").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'my_modle', .*model\.download=true .*, or a .*Did you mean 'my_model'"):
        open_model("my_modle")


@pytest.mark.parametrize("source", ["", "a\0b", "x" * 5000, "a b/c", "a/b/c/d", "m.onnx", "/", 17, None, [1]])
def test_what_is_no_model_is_one_line(source):
    with pytest.raises(UserError) as caught:
        open_model(source)
    assert "\n" not in str(caught.value)


def test_nothing_random_where_there_is_nothing_to_build_from(file):
    for source in (file, file.parent, module(), TENSORS):
        with pytest.raises(UserError, match="leave out"):
            open_model(source, pretrained=False)


# lightness -------------------------------------------------------------------------------------------------------


def python(code):
    root = Path(__file__).parents[3]
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout


def test_safetensors_are_read_without_torch(file):
    code = f"""
import sys, numpy
from raylab.models.sources import open_model
source = open_model({str(file)!r})
source.digest, [numpy.asarray(tensor) for tensor in source.model.values()]
print({{"torch", "timm", "transformers", "torchvision", "huggingface_hub", "pyarrow"}} & set(sys.modules))
"""
    assert python(code).strip() == "set()"


def test_memory_is_that_of_one_tensor(tmp_path):
    """32 tensors of 8 MB in bfloat16: walking all of them takes less than two whole ones in float32."""
    for i in range(4):
        tensors = {f"h.{8 * i + k}.weight": torch.zeros(2048, 2048, dtype=torch.bfloat16) for k in range(8)}
        save_torch(tensors, tmp_path / f"model-{i}.safetensors")
    code = f"""
import numpy
from raylab.models.sources import open_model
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
tensors = list(open_model({str(tmp_path)!r}).model.values())
before = peak()
for tensor in tensors:
    numpy.asarray(tensor)
print(peak() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    assert int(python(code)) * 1024 < 2 * 4 * 2048**2 + (4 << 20)
