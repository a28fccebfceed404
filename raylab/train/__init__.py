"""Training of the models that the control experiments need."""

from raylab.train.autograd import AUTOGRAD_VERSION, train_by_autograd
from raylab.train.relu import TRAIN_VERSION, DivergedError, State, relu_network, train, train_stacked

__all__ = [
    "AUTOGRAD_VERSION",
    "TRAIN_VERSION",
    "DivergedError",
    "State",
    "relu_network",
    "train",
    "train_by_autograd",
    "train_stacked",
]
