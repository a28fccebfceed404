"""Which folder or file is taken, and what its labels are."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from timm.data import ImageNetInfo
from torchvision.datasets import ImageFolder

from raylab.data import image_files
from raylab.data.class_folders import ClassFolders
from raylab.errors import UserError
from tests.data.made_up_images import class_folders, parquet_file

SMALL = ((8, 8),)


def says(text, *args):
    with pytest.raises(UserError) as error:
        image_files.find(*args)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_order_and_labels_are_those_of_torchvision(tmp_path):
    paths = class_folders(tmp_path, ["class10", "class2", "Zebra", "apple"], 3, SMALL)
    for place, name in ((0, "b.jpg"), (3, "a.PNG"), (6, "sub/c.webp"), (7, "sub/deeper/d.jpeg"), (8, "notes.txt")):
        target = paths[place].parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        paths[place].rename(target)
    (tmp_path / "elsewhere.jpg").write_bytes(b"")
    ours, theirs = image_files.find(tmp_path), ImageFolder(str(tmp_path))
    assert isinstance(ours, ClassFolders)
    assert [(str(path), label) for path, label in zip(ours.paths, ours.labels, strict=True)] == theirs.samples
    assert len(ours.paths) == 11


@pytest.mark.parametrize("inside", ["val", "validation", "test", "."])
def test_the_folder_of_the_split_is_found(tmp_path, inside):
    class_folders(tmp_path / inside, ["a", "b"], 2, SMALL)
    if inside != ".":
        class_folders(tmp_path / "train", ["a", "b"], 1, SMALL)
    assert image_files.find(tmp_path).labels.tolist() == [0, 0, 1, 1]
    assert image_files.find(str(tmp_path / inside)).labels.tolist() == [0, 0, 1, 1]


def test_a_split_that_is_asked_for_is_taken(tmp_path):
    for count, name in ((1, "train"), (2, "test"), (3, "val")):
        class_folders(tmp_path / name, ["a"], count, SMALL)
        parquet_file(tmp_path / "hub" / f"{name}-00000-of-00001.parquet", [b""] * (count + 3), [0] * (count + 3))
    assert [len(image_files.find(tmp_path, split).labels) for split in ("train", "test", "validation", None)] == [
        1, 2, 3, 3,
    ]  # fmt: skip
    assert [len(image_files.find(tmp_path / "hub", split).labels) for split in ("train", "test", None)] == [4, 5, 6]


def test_all_synsets_of_imagenet_are_numbered_alike_by_either_rule(tmp_path):
    known = ImageNetInfo("imagenet-1k").label_names()
    for name in known:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.JPEG").write_bytes(b"")
    for classes in (None, "folders", "imagenet-1k"):
        assert image_files.find(tmp_path, None, classes).labels.tolist() == list(range(1000))


def test_some_synsets_of_imagenet_are_numbered_as_told(tmp_path):
    class_folders(tmp_path, ["n01440764", "n02102040", "n03000684"], 1, SMALL)  # tench, springer, chain saw
    says("give data.classes=folders if the network tells just these apart", tmp_path)
    assert image_files.find(tmp_path, None, "folders").labels.tolist() == [0, 1, 2]
    assert image_files.find(tmp_path, None, "imagenet-1k").labels.tolist() == [0, 217, 491]


def test_other_synsets_are_no_imagenet_1k(tmp_path):
    class_folders(tmp_path, ["n99999998", "n99999999"], 1, SMALL)
    assert image_files.find(tmp_path).labels.tolist() == [0, 1]
    says("2 synsets, 0 of them ImageNet-1k's thousand", tmp_path, None, "imagenet-1k")
    class_folders(tmp_path, ["dog"], 1, SMALL)
    says("no synsets of ImageNet", tmp_path, None, "imagenet-1k")


def test_how_many_classes_there_are_is_known_of_the_whole(tmp_path):
    class_folders(tmp_path / "folders", ["n01440764", "n02102040"], 1, SMALL)
    assert image_files.find(tmp_path / "folders", None, "folders").classes == 2
    assert image_files.find(tmp_path / "folders", None, "imagenet-1k").classes == 1000
    file = parquet_file(tmp_path / "a.parquet", [b"x"] * 2, [0, 3])
    assert image_files.find(file).classes is None, "a class without an image may be the last"
    assert image_files.find(file, None, "imagenet-1k").classes == 1000
    table = pq.read_table(file)
    names = {"info": {"features": {"label": {"names": ["plane", "car", "bird", "cat", "deer"], "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), file)
    assert image_files.find(file).classes == 5


def test_what_is_not_there_is_one_line(tmp_path):
    says("There is no folder of images", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    says("has no labelled images: it is empty", tmp_path / "empty")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    says("in no class folders, so that they have no labels", tmp_path / "flat")
    class_folders(tmp_path / "some", ["a", "b"], 1, SMALL)
    (tmp_path / "some" / "c").mkdir()
    says("holds no image", tmp_path / "some")
    for name in "abcd":
        (tmp_path / "other" / name).mkdir(parents=True)
    says(
        "other has no labelled images: none of its folders (a, b, c, ...) holds any. Give data.root", tmp_path / "other"
    )
    class_folders(tmp_path / "trained" / "train", ["a"], 1, SMALL)
    says("give data.split", tmp_path / "trained")
    says("give data.split", tmp_path / "trained", "test")


def test_parquet_files_that_cannot_be_used_are_one_line(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    says("no whole parquet file", tmp_path / "a.parquet")
    whole = parquet_file(tmp_path / "b.parquet", [b"x"] * 40, [0] * 40)
    whole.write_bytes(whole.read_bytes()[:-30])
    says("no whole parquet file", whole)
    says("keeps its labels secret", parquet_file(tmp_path / "c.parquet", [b""], [-1]))
    says("no class number in every row", parquet_file(tmp_path / "d.parquet", [b"", b""], [0, None]))
    says("no class number in every row", parquet_file(tmp_path / "e.parquet", [b""], ["dog"]))
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": ""}]}), tmp_path / "f.parquet")
    says("has no column 'label'", tmp_path / "f.parquet")
    pq.write_table(pa.table({"image": ["a.jpg"], "label": [0]}), tmp_path / "g.parquet")
    says("no column 'image' or 'img' of encoded bytes", tmp_path / "g.parquet")
    parquet_file(tmp_path / "trained" / "train-00000-of-00001.parquet", [b""], [0])
    says("give data.split=train", tmp_path / "trained")
    parquet_file(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", [b""], [0])
    says("give data.split=train", tmp_path / "hub")
    parquet_file(tmp_path / "hub" / "data" / "val-00000-of-00001.parquet", [b""], [0])
    says("only val-00000-of-00001.parquet: give data.split=validation or train.", tmp_path / "hub", "test")
    parquet_file(tmp_path / "tested" / "test-00000-of-00001.parquet", [b""], [0])
    says("only test-00000-of-00001.parquet: give data.split=test.", tmp_path / "tested", "validation")
    parquet_file(tmp_path / "converted" / "default" / "test" / "0000.parquet", [b""], [5])
    assert image_files.find(tmp_path / "converted" / "default").labels.tolist() == [5]


def test_a_file_that_is_damaged_within_is_one_line(tmp_path):
    path = parquet_file(tmp_path / "a.parquet", [bytes(99)] * 3000, list(range(3000)), use_dictionary=False)
    content = path.read_bytes()
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # of the data; what follows describes them
    path.write_bytes(content[:4] + bytes(1000) + content[1004:])  # the images alone: found when they are read
    found = image_files.find(path)
    with pytest.raises(UserError, match="no whole parquet file") as error:
        list(found.pick(np.arange(3000)))
    assert "\n" not in str(error.value)
    path.write_bytes(content[:4] + bytes(end - 4) + content[end:])
    says("no whole parquet file", path)


def test_half_a_download_is_refused(tmp_path):
    parquet_file(tmp_path / "validation-00000-of-00002.parquet", [b""], [0])
    says("has 1 of 2 files like validation-00000-of-00002.parquet", tmp_path)
    parquet_file(tmp_path / "validation-00001-of-00002.parquet", [b""], [1])
    assert image_files.find(tmp_path).labels.tolist() == [0, 1]


def test_rows_are_picked_across_files_and_row_groups(tmp_path):
    contents = [str(number).encode() for number in range(700)]
    for part in range(2):
        path = tmp_path / f"test-0000{part}-of-00002.parquet"
        parquet_file(path, contents[350 * part : 350 * (part + 1)], [0] * 350, row_group_size=300)
    found = image_files.find(tmp_path)
    for chosen in (np.arange(700), np.array([0, 255, 256, 299, 300, 349, 350, 699]), np.array([600])):
        assert [int(image.read()) for image in found.pick(chosen)] == chosen.tolist()
