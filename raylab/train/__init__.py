"""Training of the models that the control experiments need."""

from raylab.train.relu import TRAIN_VERSION, DivergedError, State, relu_network, train, train_stacked

__all__ = ["TRAIN_VERSION", "DivergedError", "State", "relu_network", "train", "train_stacked"]
