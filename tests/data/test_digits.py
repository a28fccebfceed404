import numpy as np
from sklearn.datasets import load_digits

from raylab.data import digits


def test_every_digit_is_in_exactly_one_set():
    data, theirs = digits.load(), load_digits()
    assert (data.train_x.shape, data.test_x.shape) == ((1300, 64), (497, 64))
    assert (data.classes, data.input_shape, data.inputs) == (10, (8, 8), 64)
    whole = np.round((np.vstack([data.train_x, data.test_x]) * digits.STD + digits.MEAN) * 16)
    ours = np.column_stack([whole, np.concatenate([data.train_y, data.test_y])])
    expected = np.column_stack([theirs.data, theirs.target])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], expected[np.lexsort(expected.T)])


def test_inputs_are_normalised_and_every_class_is_in_both_sets():
    data = digits.load()
    both = np.vstack([data.train_x, data.test_x]).astype(float)
    assert abs(both.mean()) < 1e-3 and abs(both.std() - 1) < 1e-3
    assert set(data.train_y) == set(data.test_y) == set(range(10))


def test_the_split_and_the_revision_never_change():
    a, b = digits.load(), digits.load()
    np.testing.assert_array_equal(a.test_x, b.test_x)
    assert a.revision == b.revision
    assert list(a.test_y[:8]) == [6, 4, 6, 5, 7, 0, 4, 9]
