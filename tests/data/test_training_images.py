"""Two splits of a folder of images, to be trained on."""

import numpy as np
import pytest
from PIL import Image

from raylab.data import training_images
from raylab.errors import UserError
from tests.data.made_up_images import encoded, parquet_file

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    """Nine images, six of them to train on."""
    files = [encoded(Image.fromarray(each), "PNG") for each in PIXELS]
    parquet_file(tmp_path / "train-00000-of-00001.parquet", files[:6], [0, 1, 2, 0, 1, 2])
    parquet_file(tmp_path / "test-00000-of-00001.parquet", files[6:], [2, 1, 0])
    return tmp_path


def test_both_splits_come_as_they_are_stored(root):
    data = training_images.load(root, mean=[0.5] * 3, std=[0.2] * 3, cache=root / "cache")
    np.testing.assert_array_equal(data.train_x, PIXELS[:6].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.test_x, PIXELS[6:].transpose(0, 3, 1, 2))
    assert (data.classes, data.inputs, data.sample_shape, data.mean) == (3, 192, (3, 8, 8), (0.5, 0.5, 0.5))
    assert data.train_y.tolist() == [0, 1, 2, 0, 1, 2] and data.test_y.tolist() == [2, 1, 0]
    fewer = training_images.load(root, mean=[0.5] * 3, std=[0.2] * 3, train_samples=3, cache=root / "cache")
    assert len(fewer.train_y) == 3 and fewer.revision != data.revision


def test_splits_of_two_sizes_are_refused(root):
    large = encoded(Image.fromarray(PIXELS[0]).resize((16, 16)), "PNG")
    parquet_file(root / "test-00000-of-00001.parquet", [large], [0])
    with pytest.raises(UserError, match=r"give data\.size"):
        training_images.load(root, cache=root / "cache")
