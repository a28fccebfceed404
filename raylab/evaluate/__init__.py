"""Evaluation of a model with one layer changed, without running again what the change does not reach."""

from raylab.data.evaluation import IGNORED
from raylab.evaluate.score import Evaluation, score
from raylab.evaluate.walk import PrefixWalk

__all__ = ["IGNORED", "Evaluation", "PrefixWalk", "score"]
