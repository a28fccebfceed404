"""Images prepared as the processors of transformers prepare them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from raylab.data import preprocessing as images
from raylab.data.encoded import Encoded
from raylab.models.networks.preprocessing import preprocessing

PROCESSORS = [
    ("ViTImageProcessor", {}),
    ("DeiTImageProcessor", {}),
    ("BitImageProcessor", {"size": {"shortest_edge": 256}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    ("ConvNextImageProcessor", {}),
    ("PoolFormerImageProcessor", {}),
    ("ViTImageProcessor", {"do_normalize": False}),
]


@pytest.mark.parametrize(("name", "options"), PROCESSORS)
def test_as_the_processor_of_the_folder_does_it(tmp_path, name, options):
    import transformers

    y, x = np.mgrid[:300, :420]
    channels = [x * 255 / 420, y * 255 / 300, 127 + 120 * np.sin(x / 20) * np.cos(y / 30)]
    picture = Image.fromarray(np.stack(channels, -1).astype(np.uint8))
    processor = getattr(transformers, name)(**options)
    processor.save_pretrained(tmp_path)
    wanted = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])

    folder = json.loads((tmp_path / "preprocessor_config.json").read_text())
    how = images.for_network(preprocessing(object(), "", tmp_path))
    stream = io.BytesIO()
    picture.save(stream, "png")
    (found,) = images.decode([Encoded("picture", stream.getvalue)], how)
    pixels = found / 255
    if how.mean:
        pixels = (pixels - np.reshape(how.mean, (3, 1, 1))) / np.reshape(how.std, (3, 1, 1))
    assert bool(how.mean) == folder["do_normalize"]
    assert wanted.shape == pixels.shape
    assert np.abs(wanted - pixels).mean() < 0.03, "more than a pixel away: another crop or scale"
