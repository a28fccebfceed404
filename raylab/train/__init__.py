"""Training of the models that the control experiments need."""

from raylab.train.autograd import AUTOGRAD_VERSION, train_by_autograd
from raylab.train.fixed_spectrum import FIXED_VERSION, Epoch, train_epochs
from raylab.train.relu import TRAIN_VERSION, DivergedError, State, relu_network, train, train_stacked
from raylab.train.retraction import RETRACTIONS, OnceAnEpoch, Retraction, retraction_of

__all__ = [
    "AUTOGRAD_VERSION",
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
    "train_by_autograd",
    "train_epochs",
    "train_stacked",
]
