"""Images against timm's and torchvision's own reading of the same files."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, create_transform, resolve_data_config
from torchvision.datasets import ImageFolder

from raylab.data import cache, images, preprocessing
from raylab.errors import UserError
from tests.data.made_up_images import class_folders, encoded, parquet_file, smooth

CLASSES = ["n01440764", "n01443537", "n01484850"]
EVERY = {"classes": "folders"}


class Network:
    def __init__(self, preprocessing=None):
        self.preprocessing = preprocessing


@pytest.fixture
def root(tmp_path):
    """Three classes of four images in the folder val."""
    class_folders(tmp_path / "val", CLASSES, 4)
    return tmp_path


@pytest.fixture
def load(tmp_path_factory):
    """images.load with a cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    return lambda network, root, **options: images.load(network, root, **{"cache": folder, **options})


def normalised(data):
    """What a model is given, by the rule of EvaluationData."""
    x = torch.from_numpy(np.array(data.x)).float() / 255
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (data.mean, data.std))
    return (x - mean) / std


CONFIGS = {
    "vit": timm.get_pretrained_cfg("vit_base_patch16_224.augreg_in1k").to_dict(),
    "resnet34": timm.get_pretrained_cfg("resnet34.tv_in1k").to_dict(),
    "squash": {"input_size": (3, 96, 96), "crop_mode": "squash", "crop_pct": 0.95, "interpolation": "bicubic"},
    "border": {"input_size": (3, 96, 96), "crop_mode": "border", "crop_pct": 0.9, "mean": (0.1, 0.5, 0.9)},
    "oblong": {"input_size": (3, 64, 96), "interpolation": "lanczos"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_pixels_are_bit_for_bit_those_of_timms_whole_transform(root, load, name):
    config = resolve_data_config(pretrained_cfg=CONFIGS[name])
    data = load(Network(config), root, **EVERY)
    theirs = ImageFolder(root / "val", create_transform(**config))
    for ours, y, (x, label) in zip(normalised(data), data.y, theirs, strict=True):
        assert torch.equal(ours, x) and y == label
    assert data.x.dtype == np.uint8 and data.y.dtype == np.int64 and data.task == "image"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # timm leaves files open
def test_batches_are_those_of_timms_validation(root, load):
    """As timm's validate.py makes them, without its prefetcher, which needs a GPU."""
    config = resolve_data_config(pretrained_cfg=CONFIGS["vit"])
    loader = create_loader(
        create_dataset("", root=str(root / "val"), split="validation"),
        batch_size=5,
        use_prefetcher=False,
        num_workers=0,
        crop_pct=config.pop("crop_pct"),
        **config,
    )
    data = load(Network(resolve_data_config(pretrained_cfg=CONFIGS["vit"])), root, **EVERY)
    theirs = list(loader)
    assert torch.equal(torch.cat([x for x, _ in theirs]), normalised(data))
    assert torch.cat([y for _, y in theirs]).tolist() == data.y.tolist()


def test_real_images_scaled_up_as_a_vit_wants_them(shared, load):
    folder = shared / "data" / "cifar10" / "plain_text"
    config = resolve_data_config(pretrained_cfg=CONFIGS["vit"])
    data = load(Network(config), folder, samples=20, subset="first")
    stored = load(Network(), folder, samples=20, subset="first")
    transform = create_transform(**config)
    for ours, pixels in zip(normalised(data), stored.x, strict=True):
        assert torch.equal(ours, transform(Image.fromarray(pixels.transpose(1, 2, 0))))
    assert data.protocol == {"crop": "bicubic 248, centre 224", "subset": "first 20"}
    assert data.revision != stored.revision


def test_cifar10_is_what_datasets_reads(shared, load, tmp_path):
    import datasets

    path = shared / "data" / "cifar10" / "plain_text" / "test-00000-of-00001.parquet"
    data = load(Network(), path.parent, samples=300, subset="first", mean=[0.5] * 3, std=[0.25] * 3)
    theirs = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path)).select(range(300))
    features = theirs.cast_column("img", datasets.Image())
    np.testing.assert_array_equal(data.x, [np.asarray(one).transpose(2, 0, 1) for one in features["img"]])
    assert data.y.tolist() == theirs["label"] and (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)
    assert data.protocol == {"crop": "as stored 32x32", "subset": "first 300"}


def test_parquet_and_folders_of_the_same_images_are_the_same_data(root, load, tmp_path):
    theirs = ImageFolder(root / "val")
    contents = [Path(path).read_bytes() for path, _ in theirs.samples]
    labels = [label for _, label in theirs.samples]
    network = Network({"input_size": (3, 64, 64), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    folders = load(network, root, **EVERY)
    hub = tmp_path / "hub"
    parquet_file(hub / "data" / "train-00000-of-00001.parquet", contents[:1], labels[:1])
    for part, rows in enumerate((slice(0, 5), slice(5, 12))):
        name = f"validation-0000{part}-of-00002.parquet"
        parquet_file(hub / "data" / name, contents[rows], labels[rows], row_group_size=2)
    whole = parquet_file(tmp_path / "whole.parquet", contents, labels, "img")
    for place in (hub, hub / "data", whole):
        data = load(network, place)
        np.testing.assert_array_equal(data.x, folders.x)
        assert data.revision == folders.revision
    few = load(network, hub, samples=5)
    np.testing.assert_array_equal(few.x, folders.x[[0, 2, 4, 7, 9]])


def test_a_subset_is_spread_over_the_classes_or_the_first(root, load):
    every = load(Network(), root, size=32, **EVERY)
    assert every.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and every.protocol["subset"] is None
    spread = load(Network(), root, size=32, samples=6, **EVERY)
    np.testing.assert_array_equal(spread.x, every.x[::2])
    assert spread.y.tolist() == [0, 0, 1, 1, 2, 2] and spread.protocol["subset"] == "spread 6"
    assert load(Network(), root, size=32, samples=5, subset="first", **EVERY).y.tolist() == [0, 0, 0, 0, 1]
    assert spread.protocol["crop"] == "bicubic 36, centre 32" and spread.mean == ()


def test_arguments_go_before_what_the_network_says(root, load):
    config = {"input_size": (3, 64, 64), "interpolation": "bilinear", "crop_pct": 0.5, "mean": (0.5,) * 3}
    config["std"] = (0.2,) * 3
    data = load(Network(config), root, size=[32, 48], crop_pct=1.0, crop_mode="squash", std=[1, 1, 1], **EVERY)
    assert data.x.shape == (12, 3, 32, 48) and data.protocol["crop"] == "bilinear 32x48 squash, centre 32x48"
    assert (data.mean, data.std) == ((0.5,) * 3, (1.0,) * 3)


def test_what_is_kept_is_not_decoded_again(root, load, monkeypatch):
    decoded = []
    original = preprocessing._decoded
    monkeypatch.setattr(preprocessing, "_decoded", lambda *given: decoded.append(1) or original(*given))
    network = Network({"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3})
    first = load(network, root, **EVERY)
    again = load(network, root, **EVERY)
    assert (
        len(decoded) == 12
        and type(again.x) is np.ndarray
        and isinstance(again.x.base, np.memmap)
        and not again.x.flags.writeable
    )
    np.testing.assert_array_equal(first.x, again.x)
    load(network, root, mean=[0, 0, 0], **EVERY)  # the same pixels, normalised otherwise
    assert len(decoded) == 12
    load(network, root, interpolation="bilinear", **EVERY)
    assert len(decoded) == 24
    path = root / "val" / CLASSES[0] / "ILSVRC2012_val_00000000.JPEG"
    path.write_bytes(encoded(smooth(np.random.default_rng(9), 200, 200)))
    changed = load(network, root, **EVERY)
    assert len(decoded) == 36 and changed.revision != first.revision
    assert (changed.x[0] != first.x[0]).any() and (changed.x[1:] == first.x[1:]).all()


def test_the_users_cache_folder_is_the_default(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    images.load(Network(), root, size=16, **EVERY)
    assert len(list((tmp_path / "xdg" / "raylab").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.default_folder() == tmp_path / "home" / ".cache" / "raylab"


def one_line(load, network, root, says, **options):
    with pytest.raises(UserError) as error:
        load(network, root, **options)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_image_that_cannot_be_read_is_named(root, load):
    path = root / "val" / CLASSES[1] / "ILSVRC2012_val_00000002.JPEG"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>404</html>", b""):
        path.write_bytes(content)
        one_line(load, Network(), root, f"The image {path} cannot be read", size=32, **EVERY)
    for content in (None, b"nothing"):
        broken = parquet_file(root / "broken.parquet", [whole, content], [0, 1])
        one_line(load, Network(), broken, f"in row 1 of row group 0 of {broken} cannot be read", size=32)


def test_bad_arguments_are_one_line(root, load):
    cases = {
        "data.samples=13 must be between 1 and 12": {"samples": 13},
        "data.samples=0": {"samples": 0},
        "data.subset=last is not known": {"subset": "last"},
        "data.mean and data.std belong together": {"mean": [0.5] * 3},
        "three numbers each": {"mean": [0.5], "std": [0.5]},
        "data.interpolation=cubic is not known": {"interpolation": "cubic"},
        "data.crop_mode=centre is not known": {"crop_mode": "centre"},
        "data.crop_pct=87.5": {"crop_pct": 87.5},
        "data.size=0": {"size": 0},
        "data.split=dev is not known": {"split": "dev"},
        "data.classes=mine is not known": {"classes": "mine"},
        "give data.size": {"size": None},
    }
    for says, options in cases.items():
        one_line(load, Network(), root, says, **{"size": 32, **EVERY, **options})
    one_line(load, Network({"input_size": (1, 28, 28)}), root, "images of 1 channels", **EVERY)


def test_a_data_set_that_is_not_at_hand_is_one_line(load, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def missing(*args, **kwargs):
        raise LocalEntryNotFoundError("Got: ConnectError\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    one_line(load, Network(), None, "ILSVRC/imagenet-1k is not in the local cache")
    one_line(
        load, Network(), None, "could not be downloaded (LocalEntryNotFoundError: Got: ConnectError)", download=True
    )


def test_the_hubs_cache_is_read_and_only_the_split_is_fetched(root, load, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    contents = [path.read_bytes() for path in sorted((root / "val").rglob("*.JPEG"))]

    def snapshot(repository, **options):
        asked.append((repository, options))
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    (tmp_path / "hub").mkdir()
    one_line(load, Network(), None, "is not in the local cache", size=32)
    parquet_file(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", contents, [7] * 12)
    assert load(Network(), None, size=32, download=True).y.tolist() == [7] * 12
    assert [options["local_files_only"] for _, options in asked] == [True, False]
    assert all(options["repo_type"] == "dataset" for _, options in asked)
    assert "data/validation-*.parquet" in asked[1][1]["allow_patterns"]
