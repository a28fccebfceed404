"""What a person gives and an experiment would not read: refused, as it would change nothing without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raylab.errors import UserError

_TRAINING = "perturb_layers"
_GIVEN = "perturb_pretrained"
_FIXED = "alpha_fixed"
_PRECISION = {
    "precision": (_GIVEN, "what a given model computes in"),
    "biases": (_GIVEN, "whether a given model's biases go with their weights"),
    "activations": (_GIVEN, "where a given model's activations lie"),
}
_MODELS = {
    "models": (_TRAINING, "how many models are trained alike"),
    "stack": (_TRAINING, "how many models are trained together"),
    "train": (_TRAINING, "how models are trained"),
    "similarity": (_TRAINING, "whether a layer's output is compared with the original's"),
}
_RETRACTION = {
    "retractions": (_FIXED, "how singular values are kept while a model is trained"),
    "retraction": (_FIXED, "how often singular values are seen to while a model is trained"),
}
_POOL = {
    "pool": ("initial_models", "which draws models are made of"),
    "ranges": ("initial_models", "which alpha models are made with"),
}
_DRAWS = {
    "perturbations": (_TRAINING, "what takes the place of a layer"),
    "draws": (_TRAINING, "how often a random perturbation is repeated"),
}
_BATCH = {"batch_size": (_TRAINING, "how many samples are evaluated at once")}
_BOTH = {**_MODELS, **_PRECISION, **_RETRACTION}
# Kind of experiment -> section of the config that it does not read -> which kind does, and what it says.
UNREAD = {
    _GIVEN: _MODELS | _RETRACTION | _POOL,
    _TRAINING: _PRECISION | _RETRACTION | _POOL,
    _FIXED: {key: what for key, what in {**_MODELS, **_PRECISION}.items() if key not in ("models", "train")}
    | _DRAWS
    | _BATCH,
    "spectra": _BOTH | _POOL,
    "initial_layers": _BOTH | _POOL,
    "initial_models": {key: what for key, what in _BOTH.items() if key != "models"} | _DRAWS,
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
    known = UNREAD.get(kind, {})
    given = [word for word in overrides if _section(word) in known]
    without = compose([word for word in overrides if word not in given]) if given else settings
    for word in given:
        section = _section(word)
        if settings.get(section) != without.get(section):
            reader, what = known[section]
            raise UserError(f"{word} is for kind={reader} ({what}), and kind={kind} would not read it.")


def refuse_tuning(overrides: Sequence[str]) -> None:
    """Raise UserError for a key that says how a search is done, where nothing is searched."""
    for word in overrides:
        if _section(word) == "tune":
            raise UserError(f"{word} is for `python -m raylab.tune`, and raylab.run would not read it.")


def _section(override: str) -> str:
    """The section of the config that an override is about."""
    return override.partition("=")[0].lstrip("+~").partition(".")[0]
