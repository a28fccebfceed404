"""MNIST files, whole and broken. Broken ones are made here; the real ones are in the shared folder."""

import functools
import gzip
import hashlib
import http.server
import shutil
import struct
import threading

import numpy as np
import pytest
from torchvision.datasets import MNIST

from raylab.data import mnist
from raylab.errors import UserError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = mnist.FILES


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def root(tmp_path):
    """A small data set in MNIST's format."""
    raw, rng = tmp_path / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, samples in (("train", 20), ("t10k", 5)):
        images = rng.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, samples, dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def unpack(root, name):
    return gzip.decompress((root / "MNIST" / "raw" / f"{name}.gz").read_bytes())


def test_files_are_read_packed_or_unpacked(root):
    packed = mnist.load(root, verify=False)
    for name in mnist.FILES:
        archive = root / "MNIST" / "raw" / f"{name}.gz"
        archive.with_suffix("").write_bytes(unpack(root, name))
        archive.unlink()
    unpacked = mnist.load(str(root), verify=False)
    np.testing.assert_array_equal(packed.train_x, unpacked.train_x)
    assert packed.revision == unpacked.revision
    assert packed.train_x.shape == (20, 784) and packed.test_y.shape == (5,)


def test_normalisation(root):
    pixels = np.frombuffer(unpack(root, TEST_IMAGES)[16:], np.uint8).reshape(5, 784)
    expected = (pixels.astype(float) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(mnist.load(root, verify=False).test_x, expected, rtol=1e-5, atol=1e-6)


def broken(change):
    """(what to do to the bytes of the archive, what the message says)."""
    return pytest.param(*change, id=change[1])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        broken((lambda gz: gz[: len(gz) // 2], "the archive is truncated")),
        broken((lambda gz: b"", "it is truncated")),
        broken((lambda gz: gz[:-8] + bytes(4) + gz[-4:], "CRC check failed")),
        broken((lambda gz: b"<html>404</html>", "Not a gzipped file")),
        broken((lambda gz: gz[:40] + bytes(200) + gz[240:], "the archive is corrupt")),
        broken((lambda gz: gzip.compress(b"\0\0\x08\x01" + gzip.decompress(gz)[4:]), "bad magic number 0x00000801")),
        broken((lambda gz: gzip.compress(gzip.decompress(gz)[:9]), "no whole header")),
        broken((lambda gz: gzip.compress(gzip.decompress(gz)[:-1]), "it is truncated (15679 bytes of data, 15680")),
        broken((lambda gz: gzip.compress(gzip.decompress(gz) + b"x"), "it is too long")),
        broken((lambda gz: gzip.compress(idx(np.zeros((19, 28, 28), np.uint8))), "19 images but 20 labels")),
        broken((lambda gz: gzip.compress(idx(np.zeros((20, 28, 27), np.uint8))), "images of (28, 27) pixels")),
    ],
)
def test_a_broken_file_is_one_clear_line(root, damage, says):
    path = root / "MNIST" / "raw" / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as error:
        mnist.load(root, verify=False)
    message = str(error.value)
    assert says in message and TRAIN_IMAGES in message and "data.root=" in message and "data.download=true" in message
    assert "\n" not in message


def test_a_label_that_is_no_digit_is_refused(root):
    path = root / "MNIST" / "raw" / f"{TEST_LABELS}.gz"
    path.write_bytes(gzip.compress(idx(np.array([1, 2, 3, 10, 4], np.uint8))))
    with pytest.raises(UserError, match="label 10 is not a digit"):
        mnist.load(root, verify=False)


def test_content_that_is_not_mnists_is_refused_unless_told_otherwise(root):
    with pytest.raises(UserError, match=r"wrong MD5.*data\.verify=false"):
        mnist.load(root)


def test_a_missing_file_or_folder_is_one_clear_line(root, tmp_path):
    (root / "MNIST" / "raw" / f"{TEST_LABELS}.gz").unlink()
    for folder, name in ((root, TEST_LABELS), (tmp_path / "nowhere", TRAIN_IMAGES)):
        with pytest.raises(UserError, match=rf"missing: neither .*{name}.*data\.root=FOLDER.*data\.download=true") as e:
            mnist.load(folder, verify=False)
        assert "\n" not in str(e.value)


def test_a_folder_in_place_of_a_file_counts_as_missing(root):
    path = root / "MNIST" / "raw" / f"{TEST_LABELS}.gz"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="missing"):
        mnist.load(root, verify=False)


def test_without_a_network_a_download_is_one_clear_line_with_the_path_to_use(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match=r"could not be downloaded .*MNIST/raw.*data\.root=FOLDER") as error:
        mnist.load(tmp_path / "new", download=True)
    assert "\n" not in str(error.value)


def test_nothing_is_downloaded_when_the_files_are_there(root, monkeypatch):
    monkeypatch.setattr(mnist, "_download", lambda root: pytest.fail("downloaded"))
    assert mnist.load(root, download=True, verify=False).name == "mnist"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_download_through_torchvision_gives_the_same_data(root, tmp_path, monkeypatch):
    """The whole road, from a server of our own that holds the small data set."""
    raw = root / "MNIST" / "raw"
    sums = [(f"{name}.gz", hashlib.md5((raw / f"{name}.gz").read_bytes()).hexdigest()) for name in mnist.FILES]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(raw)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(MNIST, "resources", sums)
    try:
        fetched = mnist.load(tmp_path / "fetched", download=True, verify=False)
    finally:
        server.shutdown()
        server.server_close()
    assert fetched.revision == mnist.load(root, verify=False).revision


def test_the_real_files_are_what_torchvision_reads(shared, tmp_path):
    data = mnist.load(shared / "data")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in mnist.FILES:
        with gzip.open(shared / "data" / "MNIST" / "raw" / f"{name}.gz") as packed, (raw / name).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    for train, x, y in ((True, data.train_x, data.train_y), (False, data.test_x, data.test_y)):
        theirs = MNIST(tmp_path, train=train)
        np.testing.assert_array_equal(np.rint((x * 0.3081 + 0.1307) * 255), theirs.data.numpy().reshape(len(y), 784))
        np.testing.assert_array_equal(y, theirs.targets.numpy())
    assert abs(float(data.train_x.mean(dtype=float))) < 1e-3 and abs(float(data.train_x.std(dtype=float)) - 1) < 1e-3
