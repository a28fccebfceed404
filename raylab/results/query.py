"""SQL over a results folder, while a run goes on or after: the views `trials` and `differences`, and no way out."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import csv
from rich.console import Console

from raylab import places
from raylab.arguments import Parser
from raylab.errors import UserError
from raylab.results import parts, schema
from raylab.results.differences import differences, needed
from raylab.results.text import TextTable

FORMATS = ("table", "csv", "json", "parquet")
SHOWN = 100  # rows of a table on the terminal
CELL = 60  # characters of a text on the terminal
# The engine reads the views and nothing else: no file, no network, no extension, no Python variable, no way back.
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "temp_directory": "",
}
# What a statement may be: PIVOT is several in one. The engine would run any number of others, to no use.
_ASKS = ("SELECT", "EXPLAIN", "MULTI")
_HELP = """\
examples:
  python -m raylab.query results/digits                     the columns and what they mean
  python -m raylab.query results/digits "SELECT layer, perturbation, avg(accuracy), avg(alpha)
      FROM trials WHERE status = 'ok' AND isfinite(alpha) GROUP BY ALL ORDER BY ALL"
  python -m raylab.query results/digits "SELECT layer, avg(d_accuracy), avg(d_alpha) FROM differences GROUP BY ALL"
  python -m raylab.query results/digits "FROM trials" --output all.csv

The SQL is DuckDB's. The view trials has a row a trial; the view differences a row a perturbed layer, with a column
d_NAME for every number NAME: perturbed less original. A computation that failed is NaN: isfinite(alpha).
"""


def query(folder: parts.Where, sql: str) -> pa.Table:
    """The answer to an SQL query about the view `trials`: all rows of the folder or URL committed so far.

    A second view, `differences`, is what `raylab.results.differences` makes of them.
    Raises UserError, one line, for a query that fails or gives no rows, a folder without results, a damaged part.
    """
    import duckdb

    home = places.at(folder)
    for _ in parts.attempts():
        with contextlib.suppress(FileNotFoundError), parts.opened(folder, parts.require(folder)) as found:
            if isinstance(home, places.Folder):
                _refuse_links(home.path, found)
            try:
                return _ask(found, sql)
            except duckdb.Error as error:
                if not all(part.path.exists() for part in found):
                    raise FileNotFoundError from error
                if isinstance(error, duckdb.InvalidInputException | duckdb.IOException):
                    for part in found:
                        parts.read(part)  # says which one is damaged
                raise UserError(f"The query failed. {_one_line(str(error))}") from error
        # A starting run has removed failed rows to try them again: look anew.
    raise UserError(f"The parts of {folder} keep changing: ask again in a moment.")


def _refuse_links(folder: Path, found: Sequence[parts.Part]) -> None:
    """A part that is a link to somewhere else would show what lies there."""
    home = folder.resolve()
    for part in found:
        if part.path.is_symlink() or part.path.parent.is_symlink():
            target = part.path.resolve()
            if home not in target.parents:
                raise UserError(
                    f"{part.place} is a link that leads out of {folder}, to {target}: ask the folder it lies in."
                )


def _ask(found: Sequence[parts.Part], sql: str) -> pa.Table:
    import duckdb

    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    files = ds.ParquetFileFormat(default_fragment_scan_options=checked)
    with duckdb.connect(config=_LOCKED) as connection:
        connection.execute("SET python_enable_replacements = false")
        columns = parts.schema(found)
        connection.register("trials", ds.dataset([str(part.path) for part in found], columns, format=files))
        if "differences" in sql.lower():  # to make them all rows are read: only if the query can be about them
            connection.register("differences", differences(parts.read_all(found, needed(columns))))
        connection.execute("SET lock_configuration = true")
        asked = [statement.type.name for statement in connection.extract_statements(sql)]
        if len(asked) > 1 or any(kind not in _ASKS for kind in asked):
            raise UserError(
                "The query failed. One SELECT is taken, and nothing that changes or sets anything: SELECT, FROM, WITH, "
                "PIVOT, SUMMARIZE, DESCRIBE or EXPLAIN, about the view trials or differences."
            )
        relation = connection.sql(sql)
        if relation is None:
            raise UserError("The query gives no rows: write a SELECT about the view trials or differences.")
        return relation.to_arrow_table()


def _one_line(message: str) -> str:
    """DuckDB's message without the picture of where in the query it is."""
    return " ".join(message.split("\n\nLINE ")[0].split())


def columns(folder: parts.Where) -> TextTable:
    """The columns of a results folder and what they mean."""
    with parts.opened(folder, parts.require(folder)) as found:
        fields = parts.schema(found)
    rows = [[field.name, str(field.type), schema.description(field)] for field in fields]
    note = "The view differences has a row a perturbed layer, and d_NAME for its numbers: perturbed less original."
    return TextTable(f"View trials of {folder}", ["column", "type", "meaning"], rows, texts=(0, 1, 2), note=note)


def as_text(answer: pa.Table) -> TextTable:
    """The first rows for a terminal; a single row of many columns stands upright."""
    names = answer.column_names
    rows = [[_cell(value) for value in row.values()] for row in answer.slice(0, SHOWN).to_pylist()]
    texts = {at for at, field in enumerate(answer.schema) if not _numeric(field.type)}
    note = f"{answer.num_rows:,} rows" if answer.num_rows != 1 else ""
    if answer.num_rows > SHOWN:
        note = f"The first {SHOWN} of {answer.num_rows:,} rows: --format csv or --output FILE gives all."
    if answer.num_rows == 1 and len(names) > 6:
        return TextTable("", ["column", "value"], list(zip(names, rows[0], strict=True)), texts=(0, 1), note=note)
    return TextTable("", names, rows, texts=texts, note=note)


def _numeric(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else {"nan": "NaN"}.get(str(value), str(value))
    text = " ".join(str(value).split())
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def write(answer: pa.Table, form: str, stream: IO[bytes]) -> None:
    """The answer as CSV, JSON (an array with an object a row; NaN is null) or Parquet."""
    if form == "parquet":
        pq.write_table(answer, stream, compression="zstd")
    elif form == "csv":
        try:
            csv.write_csv(answer, stream, csv.WriteOptions(quoting_style="needed"))
        except pa.ArrowException as error:
            raise UserError(f"CSV cannot hold this answer ({_one_line(str(error))}): use --format json.") from error
    else:
        rows = ",\n".join(json.dumps(_json(row), ensure_ascii=False, default=str) for row in answer.to_pylist())
        stream.write(f"[{rows}]\n".encode())


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _json(entry) for name, entry in value.items()}
    return [_json(entry) for entry in value] if isinstance(value, list) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 for bad input."""
    parser = Parser("python -m raylab.query", "Ask a results folder in SQL, while a run goes on or after.", _HELP)
    parser.add_argument("results", metavar="RESULTS", help="results of a run: results/digits, s3://bucket/digits")
    parser.add_argument(
        "sql", metavar="SQL", nargs="?", help="a query about the views trials and differences; without it: the columns"
    )
    parser.add_argument("--format", choices=FORMATS, help="of the answer (default: by the ending of FILE, else table)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write there instead of to the terminal")
    given = parser.parse_args(arguments)
    try:
        with _quiet_pipe():
            _run(given)
    except UserError as error:
        print(f"raylab.query: {error}", file=sys.stderr)
        return 2
    return 0


def _run(given: argparse.Namespace) -> None:
    form = given.format or _format_of(given.output)
    if form == "parquet" and not given.output and sys.stdout.isatty():
        raise UserError("Parquet is no text for a terminal: add --output FILE.")
    if given.sql is None:
        Console().print(columns(given.results))
        return
    answer = query(given.results, given.sql)
    if given.output:
        with _whole(given.output, parts.trials(given.results).file("")) as stream:
            _emit(answer, form, stream)
        print(f"{answer.num_rows:,} rows in {given.output}", file=sys.stderr)
    elif form == "table":
        Console().print(as_text(answer))
    else:
        write(answer, form, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _emit(answer: pa.Table, form: str, stream: IO[bytes]) -> None:
    if form == "table":
        stream.write(as_text(answer).markdown().encode())
    else:
        write(answer, form, stream)


def _format_of(output: Path | None) -> str:
    ending = output.suffix.lstrip(".").lower() if output else ""
    return ending if ending in FORMATS else "table"


@contextlib.contextmanager
def _whole(target: Path, home: str | Path) -> Iterator[IO[bytes]]:
    """A file that is there whole or not at all, and never among the parts of the results, where they are local."""
    if isinstance(home, Path) and home.resolve() in target.resolve().parents:
        raise UserError(f"{target} would be taken for results: choose an --output outside {home}.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):  # there is none, or no folder: what went wrong is said above
            temporary.unlink()


@contextlib.contextmanager
def _quiet_pipe() -> Iterator[None]:
    """`| head` closing the pipe is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
