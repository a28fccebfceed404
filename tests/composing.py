"""Hydra takes a fifth of a second for a command, and to refuse a word raylab composes the same command without it."""

import functools
import sys

from raylab import config

MODULE = sys.modules["raylab.config.compose"]  # whose name in its package is the function's


@functools.cache
def _composed(words, extra_dir):
    return config.compose(words, extra_dir)


def remember(monkeypatch):
    """What config.compose composes beside what it is asked for, it composes once: tests refuse much of few experiments.

    What it is asked for, it composes each time.
    """
    monkeypatch.setattr(MODULE, "compose", lambda words, extra_dir=None: _composed(tuple(words), extra_dir))
