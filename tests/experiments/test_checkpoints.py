"""Trained weights that are kept, here or on S3, so that another machine does not train again."""

import contextlib

import numpy as np
import pytest

from raylab.errors import UserError
from raylab.experiments import checkpoints


@pytest.fixture(params=["folder", "s3"])
def kept(request, tmp_path):
    return checkpoints.of(
        str(tmp_path) if request.param == "folder" else request.getfixturevalue("cloud").bucket("weights") + "/study"
    )


def test_weights_are_kept_found_and_let_go_of(kept):
    tensors = {"fc1.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc1.bias": np.ones(2)}
    assert kept.load("a") is None and kept.kept() == set()
    kept.save("a", tensors)
    kept.save("b", {"w": np.zeros(1)})
    kept.save("b", {"w": np.ones(1)})
    found = kept.load("a")
    assert found is not None and found.keys() == tensors.keys()
    assert all(
        np.array_equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
    assert kept.kept() == {"a", "b"} and kept.load("b")["w"].tolist() == [1]
    half = kept.place.read("a.safetensors")[:50]
    kept.place.replace("a.safetensors", lambda file: file.write(half))
    assert kept.load("a") is None  # it is trained again
    kept.tidy()
    assert kept.kept() == {"a", "b"}
    kept.remove("a")
    kept.remove("a")
    assert kept.kept() == {"b"}


def test_weights_wait_for_s3_and_are_refused_at_once_where_it_says_no(cloud, monkeypatch):
    slept = []  # by botocore too
    monkeypatch.setattr("time.sleep", slept.append)
    kept = checkpoints.of(cloud.bucket("outage") + "/study")
    cloud.disturb("503", lambda method, path, before: before < 7)  # of three attempts each
    kept.save("a", {"w": np.ones(2)})
    cloud.disturb("500", lambda method, path, before: before < 4)
    assert kept.load("a")["w"].tolist() == [1, 1] and slept.count(10) == 3
    del slept[:]
    cloud.disturb("503", lambda method, path, before: before < 7)
    assert kept.kept() == {"a"} and slept.count(10) == 2
    cloud.disturb("503", lambda method, path, before: before < 7)
    kept.remove("a")
    assert slept.count(10) == 4
    assert kept.kept() == set()
    cloud.disturb("refused", lambda *_: True)
    kept.remove("a")  # it is there for longer, at worst
    with pytest.raises(UserError, match="check the credentials"):
        kept.save("a", {"w": np.ones(2)})
    cloud.disturb()


def test_what_a_killed_worker_has_left_is_tidied(tmp_path):
    kept = checkpoints.of(str(tmp_path))
    kept.tidy()  # where there is no folder yet
    kept.save("a", {"w": np.ones(2)})

    names = []

    def killed(file):
        names.extend(path.name for path in kept.place.path.iterdir() if path.name != "a.safetensors")
        raise SystemExit

    with contextlib.suppress(SystemExit):
        kept.place.replace("b.safetensors", killed)
    (half,) = names
    (kept.place.path / half).write_bytes(b"half")  # which the kill of a process would have left
    kept.tidy()
    assert [path.name for path in kept.place.path.iterdir()] == ["a.safetensors"]
