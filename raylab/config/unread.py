"""What a person gives and an experiment would not read: refused, as it would change nothing without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raylab.errors import UserError

_TRAINING, _GIVEN, _FIXED = "perturb_layers", "perturb_pretrained", "alpha_fixed"
# Section of the config that not every kind of experiment reads -> a kind that does, and what it says.
SECTIONS = {
    "models": (_TRAINING, "how many models are trained alike"),
    "stack": (_TRAINING, "how many models are trained together"),
    "train": (_TRAINING, "how models are trained"),
    "similarity": (_TRAINING, "whether a layer's output is compared with the original's"),
    "perturbations": (_TRAINING, "what takes the place of a layer"),
    "draws": (_TRAINING, "how often a random perturbation is repeated"),
    "batch_size": (_TRAINING, "how many samples are evaluated at once"),
    "precision": (_GIVEN, "what a given model computes in"),
    "biases": (_GIVEN, "whether a given model's biases go with their weights"),
    "activations": (_GIVEN, "where a given model's activations lie"),
    "pool": ("initial_models", "which draws models are made of"),
    "ranges": ("initial_models", "which alpha models are made with"),
    "retractions": (_FIXED, "how singular values are kept while a model is trained"),
    "retraction": (_FIXED, "how often singular values are seen to while a model is trained"),
}
# Kind of experiment -> which of them it reads. One of somebody's own may read all.
READ = {
    _TRAINING: {"models", "stack", "train", "similarity", "perturbations", "draws", "batch_size"},
    _GIVEN: {"precision", "biases", "activations", "perturbations", "draws", "batch_size"},
    _FIXED: {"models", "train", "pool", "ranges", "retractions", "retraction"},
    "initial_models": {"models", "pool", "ranges", "batch_size"},
    "initial_layers": {"draws"},
    "spectra": set[str](),
}


def refuse(
    kind: str,
    overrides: Sequence[str],
    settings: Mapping[str, Any],
    compose: Callable[[list[str]], Mapping[str, Any]],
) -> None:
    """Raise UserError for an override that is for another kind of experiment, unless it changes nothing.

    settings: of all `overrides`; compose: gives those of others. An experiment's own file may say what it likes.
    """
    unread = SECTIONS.keys() - READ.get(kind, SECTIONS.keys())
    given = [word for word in overrides if _section(word) in unread]
    without = compose([word for word in overrides if word not in given]) if given else settings
    for word in given:
        section = _section(word)
        if settings.get(section) != without.get(section):
            reader, what = SECTIONS[section]
            raise UserError(f"{word} is for kind={reader} ({what}), and kind={kind} would not read it.")


def refuse_tuning(overrides: Sequence[str]) -> None:
    """Raise UserError for a key that says how a search is done, where nothing is searched."""
    for word in overrides:
        if _section(word) == "tune":
            raise UserError(f"{word} is for `python -m raylab.tune`, and raylab.run would not read it.")


def _section(override: str) -> str:
    """The section of the config that an override is about."""
    return override.partition("=")[0].lstrip("+~").partition(".")[0]
