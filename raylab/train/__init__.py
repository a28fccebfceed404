"""Training of the models that the control experiments need."""

from raylab.train.fixed_spectrum import FIXED_VERSION, Epoch, train_epochs
from raylab.train.relu import TRAIN_VERSION, DivergedError, State, relu_network, train, train_stacked
from raylab.train.retraction import RETRACTIONS, OnceAnEpoch, Retraction, retraction_of

__all__ = [
    "FIXED_VERSION",
    "RETRACTIONS",
    "TRAIN_VERSION",
    "DivergedError",
    "Epoch",
    "OnceAnEpoch",
    "Retraction",
    "State",
    "relu_network",
    "retraction_of",
    "train",
    "train_epochs",
    "train_stacked",
]
