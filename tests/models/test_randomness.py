"""Global generators are lent and put back."""

import random

import numpy as np
import pytest
import torch

from raylab.models.randomness import private_randomness


def numbers():
    return random.random(), np.random.random(), torch.rand(1).item()


def test_all_three_generators_follow_the_seed_and_go_on_where_they_were():
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = numbers()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    with private_randomness(2**62 + 5):
        first = numbers()
    with pytest.raises(ZeroDivisionError), private_randomness(2**62 + 5):
        assert numbers() == first
        _ = 1 / 0
    with private_randomness(7):
        assert not set(numbers()) & set(first)
    assert numbers() == expected
