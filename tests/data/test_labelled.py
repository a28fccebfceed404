import dataclasses

import numpy as np
import pytest

from raylab.data import digits
from raylab.data.labelled import revision


def test_a_revision_tells_content_dtype_shape_and_preprocessing_apart():
    a = np.arange(6, dtype=np.uint8)
    others = [revision("x", a), revision("y", a), revision("x", a.reshape(2, 3)), revision("x", a.view(np.int8))]
    others += [revision("x", a[::-1]), revision("x", a[:3], a[3:])]
    assert len(set(others)) == len(others)
    assert revision("x", a[::2]) == revision("x", a[::2].copy())  # memory layout is not content


@pytest.mark.parametrize(
    "change",
    [
        {"train_x": np.zeros((1300, 64))},
        {"train_y": np.zeros(1300, np.int32)},
        {"train_x": np.zeros((1300, 63), np.float32)},
        {"test_y": np.zeros(4, np.int64)},
        {"input_shape": (8, 9)},
    ],
)
def test_data_that_do_not_fit_together_are_refused(change):
    with pytest.raises(ValueError, match=r"expected|must be"):
        dataclasses.replace(digits.load(), **change)
