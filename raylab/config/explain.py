"""What is wrong with a command line, in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from raylab.config.folder import groups
from raylab.config.schema import SECTIONS
from raylab.errors import UserError
from raylab.registry import load, suggest


def explain(error: Exception, section: Callable[[str], Mapping[str, Any]]) -> str:
    """Hydra's many lines, as one. section: gives the chosen model or data with its keys."""
    text = str(error)
    if several := re.search(r"Ambiguous value for argument '(.+)'|Sweep parameters '(.+)' requires", text):
        word = several[1] or several[2]
        return f"{word} gives several values, which `python -m raylab.tune` tries: give one, or a list in brackets."
    if missing := re.search(r"Could not find '([^']+)/([^']+)'", text):
        group, name = missing.groups()
        return f"Unknown {group} '{name}'.{suggest(name, groups().get(group, []))}"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(unknown[1], section)
    if "See https" in text or "override '" in text:  # the grammar of an override
        first, word = text.splitlines()[0].rstrip("."), getattr(error, "override", None) or "an override"
        return f"Cannot read {word}: {first}. Write key=value; a value with brackets, = or spaces as 'key=\"value\"'."
    reason = str(error.__cause__ or text).splitlines()[0].rstrip(".")
    where = text.splitlines()[0].removeprefix("Error merging override ").rstrip(".")
    if "could not be converted to Integer" in reason:
        return f"{where} must be a whole number (in a search: int(interval(1,9)) or range(1,9))."
    if "not a ListConfig" in reason:
        return f"{where} must be a list: write it in brackets, key=[a,b]."
    if composing := re.search(r"In '([^']+)': .* while composing", text):
        file = f"{composing[1]}.yaml"
        return (
            f"{file} does not fit the schema: an experiment's first line must be `# @package _global_`, and keys known."
        )
    return f"Bad value in {where}: {reason}." if error.__cause__ else f"{reason}."


def _unknown_key(key: str, section: Callable[[str], Mapping[str, Any]] = lambda group: {}) -> str:
    parent, _, leaf = key.rpartition(".")
    if owner := SECTIONS.get(parent):
        whole = [f"{parent}.{name}" if parent else name for name in owner.__dataclass_fields__]
        return f"Unknown key '{key}'.{suggest(key, whole)}"
    chosen = section(parent)
    if _takes(chosen, leaf):
        return f"Unknown key '{key}': the file of the chosen {parent} does not list it; add it with +{key}=..."
    given = " A given model is named by model=PATH_OR_NAME." * (key == "model.source")
    keys = [name for name in chosen if not name.startswith("_")]
    others = f" It has no keys; choose another, {parent}=NAME: {', '.join(groups().get(parent, []))}."
    known = suggest(leaf, keys) if keys or not chosen else others
    return f"Unknown key '{key}': the chosen {parent} has no '{leaf}'.{given}{known}"


def _takes(chosen: Mapping[str, Any], leaf: str) -> bool:
    """Whether what a section names takes an argument of that name."""
    try:
        return leaf in inspect.signature(load(str(chosen["_target_"]))).parameters
    except (KeyError, UserError, TypeError, ValueError):
        return False


def refuse_extra(config: dict[str, Any]) -> None:
    """What `+key=value` put where the schema has no such key: Hydra lets it pass, and nothing would read it."""
    for parent, owner in SECTIONS.items():
        section = config[parent] if parent else config
        for key in section:
            if key not in owner.__dataclass_fields__:
                raise UserError(_unknown_key(f"{parent}.{key}" if parent else key))
