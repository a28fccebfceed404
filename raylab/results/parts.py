"""Reading a results folder, at any time: every part that is there is whole."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from raylab import places
from raylab.errors import UserError, first_line
from raylab.places import Place

Where = str | Path | Place  # of results: a folder or a URL
T = TypeVar("T")
TRIALS = "trials"
RUN_INFO = "run.json"
OUTCOME = ("trial_id", "status")
# A run that starts may remove failed rows, to try them again, while we read: list the folder anew, so many times.
ATTEMPTS = 12
PAUSE = 0.05  # seconds, growing


class Part(NamedTuple):
    """A committed part, while it can be opened here."""

    path: Path  # on this machine: the part or a copy of it
    place: str  # where it lies, for a person


class DamagedPartError(UserError):
    """A part that is not what was written."""


def trials(where: Where) -> Place:
    """Where the parts of some results lie."""
    return places.at(where) / TRIALS


def names(where: Where) -> list[str]:
    """The names of the committed parts, in order."""
    return [name for name in trials(where).names() if name.endswith(".parquet")]


def number(part: str) -> int:
    """The running number in the name of a part; 0 where it has none."""
    found = re.search(r"-(\d+)\.parquet$", part)
    return int(found[1]) if found else 0


@contextlib.contextmanager
def opened(where: Where, wanted: Sequence[str]) -> Iterator[list[Part]]:
    """Parts by their names. Raises FileNotFoundError where one is gone."""
    home = trials(where)
    with home.local(wanted) as paths:
        yield [Part(path, str(home.file(name))) for path, name in zip(paths, wanted, strict=True)]


def read(part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """One part (of `columns`, those that it has).

    Raises DamagedPartError if it is, FileNotFoundError if it is gone, UserError if the disk or the system refuses.
    """
    with _opened(part) as file:
        has = file.schema_arrow.names
        return file.read(columns=None if columns is None else [name for name in columns if name in has])


def read_surely(where: Where, part: Part) -> pa.Table:
    """`read`; where that fails, once more from where it lies: it may be the disk that failed, or the way here."""
    try:
        return read(part)
    except UserError:
        with opened(where, [part.path.name]) as (again,):
            return read(again)


@contextlib.contextmanager
def _opened(part: Part) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(part.path, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _explained(part, error) from error


def _explained(part: Part, error: Exception) -> UserError:
    """Of what the system refuses pyarrow says the number, and says none of what it cannot make sense of."""
    if isinstance(error, MemoryError):
        return UserError(f"{part.place} cannot be read, for lack of memory: free some, and run the same command again.")
    if isinstance(error, PermissionError):
        return UserError(f"{part.place} cannot be read (permission denied): ask whoever owns it to let you read it.")
    if isinstance(error, OSError) and error.errno:
        return UserError(
            f"{part.place} cannot be read ({os.strerror(error.errno)}): see to the disk or drive that it lies on, and "
            "run the same command again."
        )
    return DamagedPartError(
        f"{part.place} is damaged ({first_line(error)}): run the command that wrote it again (`raylab.status` says "
        "which); it sets the part aside, and only its trials are run again."
    )


def attempts() -> Iterator[int]:
    """So many, with growing pauses between."""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        yield attempt


def load(folder: Where, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a results folder or URL, committed so far, as one table with the union of the parts' columns.

    `columns`: only these, where there are such. Raises UserError if there is no folder, no row, or a damaged part.
    """
    for _ in attempts():
        with contextlib.suppress(FileNotFoundError), opened(folder, require(folder)) as found:
            return read_all(found, columns)
    raise UserError(f"The parts of {folder} keep changing: ask again in a moment.")


def read_all(found: Sequence[Part], columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of these parts as one table; errors as `read`."""
    tables = [read(part, columns) for part in found]
    return _together(lambda: pa.concat_tables(tables, promote_options="permissive"))


def require(folder: Where) -> list[str]:
    """The parts of results that must have some. Raises UserError if there is no such folder or no row in it."""
    found = names(folder)
    if not found:
        place = places.at(folder)
        if not place.exists():
            raise UserError(f"There is no folder {place}: give the results folder of a run, such as results/digits.")
        hint = " (give the folder above it)" if str(place).rpartition("/")[2] == TRIALS else ""
        raise UserError(f"No results in {place} yet{hint}: its {TRIALS}/ holds no Parquet part.")
    return found


def schema(found: Sequence[Part]) -> pa.Schema:
    """The union of the parts' columns, in the order in which they appear; errors as `read`."""
    schemas = [_schema(part) for part in found]
    return _together(lambda: pa.unify_schemas(schemas, promote_options="permissive"))


def _schema(part: Part) -> pa.Schema:
    with _opened(part) as file:
        return file.schema_arrow


def statuses(folder: Where) -> dict[str, str]:
    """Status by trial id of what is committed, without a lock: for a plan, while a run goes on. Empty without a folder.

    Errors as `read`.
    """
    for _ in attempts():
        with contextlib.suppress(FileNotFoundError), opened(folder, names(folder)) as found:
            return index((part, read(part, OUTCOME)) for part in found)[0]
    raise UserError(f"The parts of {folder} keep changing: ask again in a moment.")


def index(found: Iterable[tuple[Part, pa.Table]]) -> tuple[dict[str, str], dict[str, str]]:
    """Status by trial id, and the name of the part of each failed row. Raises UserError for a trial twice.

    found: parts with their rows, of which the columns OUTCOME count.
    """
    status: dict[str, str] = {}
    owner: dict[str, Part] = {}
    for part, rows in found:
        for trial, outcome in outcomes(rows):
            if trial in status:
                raise UserError(
                    f"Trial {trial} is in {owner[trial].place} and in {part.place}: "
                    "delete one of them and run the same command again."
                )
            status[trial], owner[trial] = outcome, part
    return status, {trial: part.path.name for trial, part in owner.items() if status[trial] == "failed"}


def count(part: Part) -> tuple[int, int]:
    """How many rows did not fail and how many did, by the statistics in its footer. Errors as `read`."""
    with _opened(part) as file:
        about, at = file.metadata, file.schema_arrow.get_field_index("status")
        # Failed rows have parts of their own: each of their groups has that status only.
        groups = [about.row_group(group) for group in range(about.num_row_groups)]
        failed = sum(group.num_rows for group in groups if group.column(at).statistics.min == "failed")
        return about.num_rows - failed, failed


def outcomes(rows: pa.Table) -> list[tuple[str, str]]:
    """Trial id and status of each row. The few words of a status are shared: of a million rows they would weigh."""
    trials, words = (rows[name].to_pylist() for name in OUTCOME)
    return list(zip(trials, map(sys.intern, words), strict=True))


def _together(unify: Callable[[], T]) -> T:
    try:
        return unify()
    except pa.ArrowException as error:
        raise UserError(
            f"The parts of this folder do not fit together ({first_line(error)}): "
            "they come from runs with different columns; give each its own results folder."
        ) from error
