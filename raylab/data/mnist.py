"""MNIST in torchvision's own layout: <root>/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz].

The files are parsed here rather than by torchvision, whose reader accepts what it should not and wants the
archives unpacked next to themselves, which a read-only folder does not allow.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raylab.data.labelled import ClassificationData, revision
from raylab.errors import UserError
from raylab.types import Array

MEAN, STD = 0.1307, 0.3081
PREPROCESSING = f"(x/255 - {MEAN})/{STD}"

# File -> MD5 of its unpacked content, as distributed by LeCun, Cortes and Burges.
FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
ADVICE = "Give another folder (data.root=FOLDER, holding MNIST/raw) or fetch it (data.download=true)."


def load(root: str | Path, download: bool = False, verify: bool = True) -> ClassificationData:
    """MNIST as 60,000 training and 10,000 test samples of 784 inputs, normalised to (x/255 - .1307)/.3081.

    `root` is the folder that holds MNIST/raw. With `download`, what is missing there is fetched by torchvision.
    `verify=False` accepts other data in the same format (Fashion-MNIST, a subset). Raises UserError for a file that is
    missing, truncated or corrupt.
    """
    raw = Path(root).expanduser() / "MNIST" / "raw"
    if download and any(_find(raw, name) is None for name in FILES):
        _download(Path(root).expanduser())
    train_images, train_labels, test_images, test_labels = (_read(raw, name, verify) for name in FILES)
    train_x, train_y = _pair(train_images, train_labels, raw, "train")
    test_x, test_y = _pair(test_images, test_labels, raw, "t10k")
    return ClassificationData(
        name="mnist",
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        classes=10,
        input_shape=(28, 28),
        revision=revision(PREPROCESSING, train_images, train_labels, test_images, test_labels),
    )


def _find(raw: Path, name: str) -> Path | None:
    """The unpacked file if it is there, else the archive, else None."""
    return next((path for path in (raw / name, raw / f"{name}.gz") if path.is_file()), None)


def _read(raw: Path, name: str, verify: bool) -> NDArray[np.uint8]:
    """The array in one IDX file: images (samples, 28, 28) or labels (samples,)."""
    path = _find(raw, name)
    if path is None:
        raise UserError(f"MNIST file missing: neither {raw / name}.gz nor {name} is there. {ADVICE}")
    content = _content(path)
    array = _parse(path, content, dimensions=3 if "idx3" in name else 1)
    if verify and hashlib.md5(content, usedforsecurity=False).hexdigest() != FILES[name]:
        raise _unusable(path, "its content is not MNIST's (wrong MD5); data.verify=false accepts it all the same")
    return array


def _content(path: Path) -> bytes:
    try:
        blob = path.read_bytes()
        return gzip.decompress(blob) if path.suffix == ".gz" else blob
    except EOFError as error:
        raise _unusable(path, "the archive is truncated") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _unusable(path, f"the archive is corrupt ({error})") from error
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})") from error


def _parse(path: Path, content: bytes, dimensions: int) -> NDArray[np.uint8]:
    """IDX: two zero bytes, type 8 (unsigned byte), number of dimensions, each as a big-endian uint32, the bytes."""
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise _unusable(path, f"it is truncated ({len(content)} bytes, no whole header)")
    if content[:4] != bytes([0, 0, 8, dimensions]):
        raise _unusable(path, f"bad magic number 0x{content[:4].hex()} (0x0000080{dimensions} expected)")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) - header != size:
        what = "truncated" if len(content) - header < size else "too long"
        raise _unusable(path, f"it is {what} ({len(content) - header} bytes of data, {size} expected)")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _pair(images: Array, labels: Array, raw: Path, part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Normalised inputs and classes of a set, after checking that they belong together."""
    path = raw / f"{part}-images-idx3-ubyte"
    if len(images) != len(labels) or not len(images):
        raise _unusable(path, f"{len(images)} images but {len(labels)} labels")
    if images.shape[1:] != (28, 28):
        raise _unusable(path, f"images of {images.shape[1:]} pixels, not (28, 28)")
    if labels.max() > 9:
        raise _unusable(raw / f"{part}-labels-idx1-ubyte", f"label {labels.max()} is not a digit")
    x = images.reshape(len(images), -1).astype(np.float32)
    x /= 255
    x -= MEAN
    x /= STD
    return x, labels.astype(np.int64)


def _download(root: Path) -> None:
    from torchvision.datasets import MNIST

    try:
        MNIST(str(root), train=True, download=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(
            f"MNIST could not be downloaded to {root} ({reason}). Without a network, copy its four files to "
            f"{root / 'MNIST' / 'raw'}, or give the folder that holds MNIST/raw: data.root=FOLDER."
        ) from error


def _unusable(path: Path, why: str) -> UserError:
    return UserError(f"MNIST file {path} cannot be used: {why}. Delete or replace it. {ADVICE}")
