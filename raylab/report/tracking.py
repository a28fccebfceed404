"""Progress and outcome of a run to an experiment tracker, if one is asked for (`tracking=trackio`, `tracking=wandb`).

Both have the same few functions: init, log, finish. Nothing is sent but numbers of progress, the config without
secrets, and in the end the correlations and the scoreboard.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from raylab import places, redact
from raylab.errors import UserError, first_line
from raylab.results.parts import Where

EVERY = 10.0  # seconds from one message about progress to the next
# File of a results folder -> the columns that name a row, and which of its numbers are told in the end (none: all).
# Of correlations those over all layers: a large model would have thousands.
_OUTCOMES = {
    "correlations.csv": (("target", "scope", "condition", "metric"), ("rho", "tau")),
    "scoreboard.csv": (("metric",), ()),
}


class Options(Protocol):
    """What a config says of it."""

    backend: str
    project: str


class Tracker(Protocol):
    """Who is told."""

    def progress(self, numbers: Callable[[], Mapping[str, Any]]) -> None:
        """How far it is; asked for only when it is time."""
        ...


class _Nobody:
    def progress(self, numbers: Callable[[], Mapping[str, Any]]) -> None:
        return


class _Run:
    """A run of a library with the functions of Weights & Biases. Its failures cost messages, never the run."""

    def __init__(self, run: Any) -> None:
        self._run, self._told = run, time.monotonic()

    def progress(self, numbers: Callable[[], Mapping[str, Any]]) -> None:
        if time.monotonic() - self._told >= EVERY:
            self.log(numbers())

    def log(self, numbers: Mapping[str, Any]) -> None:
        self._told = time.monotonic()
        told = {name: value for name, value in numbers.items() if isinstance(value, (int, float))}
        with contextlib.suppress(Exception):
            self._run.log(told)

    def finish(self) -> None:
        self._run.finish()


@contextlib.contextmanager
def open_tracker(options: Options, name: str, info: Mapping[str, Any], folder: Where) -> Iterator[Tracker]:
    """The tracker of a run while its block lasts; `folder`'s outcomes are told when it ends without an error.

    Raises UserError where the library is not installed or cannot begin.
    """
    if options.backend == "none":
        yield _Nobody()
        return
    run = _Run(_begun(_library(options.backend), options, name, info))
    try:
        yield run
        run.log(outcomes(folder))
    finally:
        with contextlib.suppress(Exception):
            run.finish()


def outcomes(folder: Where) -> dict[str, float]:
    """The numbers of correlations.csv and scoreboard.csv of a folder, by file, row and column."""
    told: dict[str, float] = {}
    for file, (names, columns) in _OUTCOMES.items():
        with contextlib.suppress(FileNotFoundError):
            rows = csv.DictReader(io.StringIO(places.at(folder).read(file).decode(), newline=""))
            for row in (row for row in rows if not row.get("layer")):
                key = "/".join([Path(file).stem, *(row[name] for name in names if row.get(name))])
                told |= {f"{key}/{name}": value for name in columns or row for value in _number(row.get(name))}
    return told


def _number(text: str | None) -> list[float]:
    try:
        return [float(text or "")]
    except ValueError:
        return []


def _library(backend: str) -> Any:
    try:
        return importlib.import_module(backend)
    except ImportError as error:
        raise UserError(
            f"tracking={backend} needs a package that is missing: `uv sync --extra {backend}`, or pip install "
            f"'raylab[{backend}]'; or leave it out."
        ) from error


def _begun(library: Any, options: Options, name: str, info: Mapping[str, Any]) -> Any:
    config = redact.plain({**info["config"], "command": info["command"], "code": info["code"]})
    try:
        return library.init(project=options.project, name=f"{name}-{info['started_at']}", config=config)
    except Exception as error:
        raise UserError(
            f"tracking={options.backend} cannot begin ({first_line(error)}): set it up, or leave it out."
        ) from error
