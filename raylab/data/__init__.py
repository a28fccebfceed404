"""Data: what a model is trained on and evaluated with."""

from raylab.data.evaluation import EvaluationData
from raylab.data.labelled import ClassificationData

__all__ = ["ClassificationData", "EvaluationData"]
