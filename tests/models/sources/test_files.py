import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from raylab.errors import UserError
from raylab.models.sources import open_model

RNG = np.random.default_rng(0)
TENSORS = {f"h.{i}.weight": RNG.normal(size=(4, 3)).astype(np.float32) for i in range(4)}
NAMES = list(TENSORS)


def part(*indices):
    return {NAMES[i]: TENSORS[NAMES[i]] for i in indices}


def sharded(folder, stem="model", suffix=".safetensors"):
    """As save_pretrained writes it."""
    shards = {f"{stem}-0000{i + 1}-of-00002{suffix}": part(2 * i, 2 * i + 1) for i in range(2)}
    for name, tensors in shards.items():
        if suffix == ".bin":
            torch.save({key: torch.from_numpy(array) for key, array in tensors.items()}, folder / name)
        else:
            save_file(tensors, folder / name)
    weight_map = {key: name for name, tensors in shards.items() for key in tensors}
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def assert_all(model, tensors=TENSORS):
    assert list(model) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(np.asarray(model[name]), array)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my-model"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("stem", "suffix"),
    [("model", ".safetensors"), ("diffusion_pytorch_model", ".safetensors"), ("pytorch_model", ".bin"),
     ("model.fp16", ".safetensors")],
)  # fmt: skip
def test_shards_with_an_index(folder, stem, suffix):
    index = sharded(folder, stem, suffix)
    assert_all(open_model(folder).model)
    assert_all(open_model(index).model)
    assert open_model(folder).name == "my-model"


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_without_an_index(folder, suffix):
    sharded(folder, suffix=suffix).unlink()
    assert_all(open_model(folder).model)


@pytest.mark.parametrize("name", ["model", "diffusion_pytorch_model", "anything"])
def test_one_file_in_a_folder(folder, name):
    save_file(TENSORS, folder / f"{name}.safetensors")
    (folder / "config.json").write_text("{}")
    assert_all(open_model(folder).model)
    assert open_model(folder / f"{name}.safetensors").name == (name if name == "anything" else "my-model")


def test_a_snapshot_of_the_hub_holds_the_same_weights_in_many_formats(folder):
    save_file(TENSORS, folder / "model.safetensors")
    save_file(part(0), folder / "model.fp16.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "tf_model.h5").touch()
    assert_all(open_model(folder).model)


def test_a_folder_of_a_trainer(folder):
    save_file(TENSORS, folder / "model.safetensors")
    torch.save({"state": {}}, folder / "optimizer.pt")
    assert_all(open_model(folder).model)


def test_a_missing_shard(folder):
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"names model-00002-of-00002\.safetensors, which is not there"):
        open_model(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/x.safetensors", "notes.txt", ""])
def test_an_index_names_only_files_beside_it(folder, name):
    save_file(TENSORS, folder.parent / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match="no file of weights beside it"):
        open_model(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json"):
        open_model(folder)


def test_a_folder_with_two_kinds(folder):
    save_file(TENSORS, folder / "a.safetensors")
    torch.save({}, folder / "b.pt")
    with pytest.raises(UserError, match=r"more than one model \(a\.safetensors, b\.pt\): give the one file"):
        open_model(folder)


def test_a_folder_with_two_pytorch_models(folder):
    for name in ("epoch1.pt", "epoch2.pt"):
        torch.save({"w": torch.ones(2, 2)}, folder / name)
    with pytest.raises(UserError, match=r"more than one model \(epoch1\.pt, epoch2\.pt\)"):
        open_model(folder)


def test_a_folder_with_two_indices(folder):
    sharded(folder, "a")
    sharded(folder, "b")
    with pytest.raises(UserError, match="more than one model"):
        open_model(folder)


def test_a_pipeline_of_diffusers(folder):
    for name in ("unet", "vae"):
        (folder / name).mkdir()
        save_file(TENSORS, folder / name / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"its folders do: give one of unet, vae\."):
        open_model(folder)


def test_an_empty_folder_and_one_of_other_things(folder):
    with pytest.raises(UserError, match=r"my-model is empty; raylab takes a \.safetensors file"):
        open_model(folder)
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no weights \(notes\.txt\)"):
        open_model(folder)


@pytest.mark.parametrize("suffix", [".gguf", ".onnx", ".h5", ".pb", ".npz", ".msgpack", ".pkl"])
def test_formats_of_others_are_named(folder, suffix):
    path = folder / f"model{suffix}"
    path.touch()
    for source in (path, folder):
        with pytest.raises(UserError, match=rf"model\{suffix} is .*: ") as caught:
            open_model(source)
        assert "\n" not in str(caught.value)


def test_an_unknown_file(folder):
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"does not read .*notes\.txt; it takes"):
        open_model(folder / "notes.txt")
