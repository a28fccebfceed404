"""Order and likeness of names, and the words of others in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

DIGITS = re.compile(r"(\d+)")
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key by which "h.2" comes before "h.10"."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in DIGITS.split(name)]


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Old name -> new name, without the prefixes of wrappers that all of them share."""
    new = {name: name for name in names}
    while prefix := next((w for w in WRAPPERS if new and all(name.startswith(w) for name in new.values())), ""):
        new = {old: name.removeprefix(prefix) for old, name in new.items()}
    return new


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint " Did you mean 'x' or 'y'?", or nothing. For lists too long to be printed; else see registry.suggest."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""


def nearby(path: Path) -> str:
    """`did_you_mean` of what lies where a path that does not exist points to."""
    folder = path.parent
    try:
        there = [entry.name for entry in folder.iterdir()]
    except OSError:
        return f" There is no folder {folder} either."
    known = {name: str(folder / name) for name in there}
    close = difflib.get_close_matches(path.name, list(known), n=3)
    return f" Did you mean {' or '.join(repr(known[name]) for name in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """What an exception of a library says, cut to one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
