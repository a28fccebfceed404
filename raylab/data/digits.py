"""Scikit-learn's handwritten digits: real data that ships inside a dependency, so that it works offline.

1,797 grey images of 8 x 8 pixels with values 0..16 (the test part of the UCI Optical Recognition of Handwritten
Digits data, Alpaydin and Kaynak 1998).
"""

from __future__ import annotations

import importlib

import numpy as np

from raylab.data.labelled import ClassificationData, revision

TEST_SAMPLES = 497
SPLIT_SEED = 1998  # of the split, not of an experiment: every run sees the same test set
# Mean and standard deviation of x/16 over all 1,797 x 64 values.
MEAN, STD = 0.3053, 0.3761
PREPROCESSING = f"(x/16 - {MEAN})/{STD}; split {SPLIT_SEED}: last {TEST_SAMPLES} of a permutation are the test set"


def load() -> ClassificationData:
    """The digits as 1,300 training and 497 test samples of 64 inputs, normalised to (x/16 - mean)/std."""
    digits = importlib.import_module("sklearn.datasets").load_digits()
    pixels, labels = np.asarray(digits.data), np.asarray(digits.target)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    x = ((pixels / 16 - MEAN) / STD).astype(np.float32)[order]
    y = labels.astype(np.int64)[order]
    train = len(y) - TEST_SAMPLES
    return ClassificationData(
        name="digits",
        train_x=x[:train],
        train_y=y[:train],
        test_x=x[train:],
        test_y=y[train:],
        classes=10,
        input_shape=(8, 8),
        revision=revision(PREPROCESSING, pixels, labels),
    )
