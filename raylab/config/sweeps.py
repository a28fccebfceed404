"""What a command line searches, in Hydra's grammar of sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raylab.config.study import NO_ANSWER
from raylab.errors import UserError
from raylab.space import Choice, Dimension, Interval

NO_SAMPLE = (*NO_ANSWER, "tune", "experiment")


def searched(overrides: Sequence[str]) -> tuple[list[str], dict[str, Dimension]]:
    """The overrides that give one value, and what the others search: key=choice(...), range(...), interval(...), a,b.

    Raises UserError for what cannot be read, and what no search could use.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    plain, space = [], {}
    for word in overrides:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:  # a model's place, which compose will quote, or what it will explain
            plain.append(word)
            continue
        if override.is_sweep_override():
            _require_answer(override.get_key_element(), word)
            space[override.get_key_element()] = _dimension(override, word)
        else:
            plain.append(word)
    return plain, space


def _require_answer(key: str, word: str) -> None:
    """Where and how something is run makes no other sample of it."""
    if key.lstrip("+~").partition(".")[0] in NO_SAMPLE:
        raise UserError(f"{word}: {key} changes no answer, and cannot be searched: give it one value.")


def _dimension(override: Any, word: str) -> Dimension:
    """Hydra's sweep as plain data."""
    sweep = override.value()
    if unknown := sorted(getattr(sweep, "tags", set()) - {"log"}):
        raise UserError(f"{word}: the tag '{unknown[0]}' means nothing here; tag(log,interval(...)) is known.")
    if override.is_interval_sweep():
        low, high = sweep.start, sweep.end
        log, whole = "log" in sweep.tags, isinstance(low, int) and isinstance(high, int)
        if not low < high or (log and low <= 0):
            raise UserError(f"{word}: an interval goes up{', and its logarithm from above 0' if log else ''}.")
        return Interval(low, high, log, whole)
    if not hasattr(sweep, "shuffle") or sweep.tags or sweep.shuffle:  # a glob over file names has none of it
        raise UserError(f"{word}: write key=choice(a,b), key=range(0,10) or key=tag(log,interval(1e-3,1e-1)).")
    texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not texts:
        raise UserError(f"{word} has no values.")
    return Choice(texts)
