"""What a reference stands for, and what an error of Ray's says."""

from __future__ import annotations

import re
from typing import Any

import ray
from ray.exceptions import RayError

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
FETCH_SECONDS = 60.0  # for what is there: its node may be cut off before it is known to be


def said(error: RayError | str) -> str:
    """What an error says. Ray colours the name of the worker, wherever it will be read."""
    return _COLOUR.sub("", str(error)).strip()


def fetch(reference: Any) -> Any:
    """Raises what its task did, RayError where it is lost, GetTimeoutError after FETCH_SECONDS.

    Without the traceback so far: Ray's frames and the error refer to each other, so that until Python's next collection
    of garbage all would live on that the callers had in hand: actors with their shares of GPUs, outcomes not yet taken.
    """
    try:
        return ray.get(reference, timeout=FETCH_SECONDS)
    except RayError as error:
        raise error.with_traceback(None) from None
