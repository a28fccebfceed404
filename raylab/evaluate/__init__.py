"""Evaluation of a model with one layer changed, without running again what the change does not reach."""

from raylab.evaluate.score import IGNORED, Evaluation, score
from raylab.evaluate.walk import PrefixWalk

__all__ = ["IGNORED", "Evaluation", "PrefixWalk", "score"]
