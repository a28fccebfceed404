"""Which configs are one study, whose rows may lie in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from raylab.config.schema import Config
from raylab.types import digest

# How much is run: two commands that differ here add to one results folder.
_AXES = ("models", "layers", "perturbations", "draws")
# Which given weights are measured: a digest of their content is in every row, and models can be added to a folder.
_WEIGHTS = ("model.source", "model.adapter", "model.pretrained", "model.name")
# Where alpha is fixed, every epoch has its row, and ranges and retractions do not know of each other.
_OF_FIXED = ("train.epochs", "retractions", "ranges")
# Where and how it is run: no answer depends on it but for rounding (a stack of models on a GPU adds in another order).
# What the data are, their revision says, wherever they lie; which draws of a pool a model is made of, its checkpoint.
NO_ANSWER = ("results", "plan", "progress", "report", "tracking", "cluster", "stack", "activations", "pool")
_INCIDENTAL = (*NO_ANSWER, "batch_size", "data", "spectral.device", "model.download")
# Of a search, how many samples are asked for, and how many at a time: more of them add to the folder.
_SEARCHED = ("tune.max_concurrent", "tune.samples")


def answer_digest(config: dict[str, Any], identity: Mapping[str, str]) -> str:
    """Digest of everything that changes an answer: of a config, and what an experiment says of itself."""
    return digest([_without(config, (*_INCIDENTAL, "tune")), dict(identity)])


def study_digest(config: dict[str, Any], identity: Mapping[str, str]) -> str:
    """Digest of an answer, how much of it is asked for, and how it is searched."""
    return digest([_without(config, (*_INCIDENTAL, *_SEARCHED)), dict(identity)])


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What makes the rows of two configs incomparable, as "train.epochs: 12 -> 3"."""
    of_kind = {"spectra": _WEIGHTS, "alpha_fixed": _OF_FIXED}.get(str(new.get("kind")), ())
    free = _AXES + _INCIDENTAL + _SEARCHED + of_kind
    # An older run has no word of keys that were added since, and raylab.run none of how a search is done.
    defaults = _without(asdict(Config(name="")), free)
    before, after = ({**defaults, **_without(config, free)} for config in (old, new))
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _without(config: Mapping[str, Any], sections: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """A config as dotted keys and values, less some sections."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in sections:
            continue
        if isinstance(value, dict):
            flat |= _without(value, sections, f"{key}.")
        else:
            flat[key] = value
    return flat
