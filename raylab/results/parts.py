"""Reading a results folder, at any time: every part that is there is whole."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from raylab.errors import UserError

T = TypeVar("T")
TRIALS = "trials"
RUN_INFO = "run.json"
# A run that starts may remove failed rows, to try them again, while we read: list the folder anew, so many times.
ATTEMPTS = 5


def paths(folder: str | Path) -> list[Path]:
    """The committed parts, in the order of their names."""
    return sorted(path for path in (Path(folder) / TRIALS).glob("*.parquet") if not path.name.startswith("."))


def number(part: Path) -> int:
    """The running number in the name of a part; 0 where it has none."""
    found = re.search(r"-(\d+)\.parquet$", part.name)
    return int(found[1]) if found else 0


def read(part: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One part (of `columns`, those that it has). Raises UserError if it is damaged, FileNotFoundError if gone."""
    with _opened(part) as file:
        has = file.schema_arrow.names
        return file.read(columns=None if columns is None else [name for name in columns if name in has])


@contextlib.contextmanager
def _opened(part: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{part} is damaged ({_first_line(error)}): delete it and run the same command again; "
            "only its trials are run again."
        ) from error


def load(folder: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a results folder, committed so far, as one table with the union of the parts' columns.

    `columns`: only these, where there are such. Raises UserError if there is no folder, no row, or a damaged part.
    """
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return read_all(require(folder), columns)
    raise UserError(f"The parts of {folder} keep changing: ask again in a moment.")


def read_all(found: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of these parts as one table; errors as `read`."""
    tables = [read(part, columns) for part in found]
    return _together(lambda: pa.concat_tables(tables, promote_options="permissive"))


def require(folder: str | Path) -> list[Path]:
    """The parts of a folder that must have some. Raises UserError if there is no such folder or no row in it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give the results folder of a run, such as results/digits.")
    found = paths(folder)
    if not found:
        hint = " (give the folder above it)" if folder.name == TRIALS else ""
        raise UserError(f"No results in {folder} yet{hint}: its {TRIALS}/ holds no Parquet part.")
    return found


def schema(found: Sequence[Path]) -> pa.Schema:
    """The union of the parts' columns, in the order in which they appear; errors as `read`."""
    schemas = [_schema(part) for part in found]
    return _together(lambda: pa.unify_schemas(schemas, promote_options="permissive"))


def _schema(part: Path) -> pa.Schema:
    with _opened(part) as file:
        return file.schema_arrow


def statuses(folder: str | Path) -> dict[str, str]:
    """Status by trial id of what is committed, without a lock: for a plan, while a run goes on. Empty without a folder.

    Errors as `read`.
    """
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return index(folder)[0]
    raise UserError(f"The parts of {folder} keep changing: ask again in a moment.")


def index(folder: str | Path) -> tuple[dict[str, str], dict[str, Path]]:
    """Status by trial id, and the part of each failed row. Raises UserError for a damaged part or a trial twice."""
    status: dict[str, str] = {}
    owner: dict[str, Path] = {}
    for part in paths(folder):
        rows = read(part, ["trial_id", "status"])
        for trial, outcome in zip(rows["trial_id"].to_pylist(), rows["status"].to_pylist(), strict=True):
            if trial in status:
                raise UserError(
                    f"Trial {trial} is in {owner[trial]} and in {part}: "
                    "delete one of them and run the same command again."
                )
            status[trial], owner[trial] = outcome, part
    return status, {trial: part for trial, part in owner.items() if status[trial] == "failed"}


def _together(unify: Callable[[], T]) -> T:
    try:
        return unify()
    except pa.ArrowException as error:
        raise UserError(
            f"The parts of this folder do not fit together ({_first_line(error)}): "
            "they come from runs with different columns; give each its own results folder."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
