"""What a search leaves in a results folder beside its rows: a column a searched key, and a table of the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylab.errors import UserError
from raylab.results.columns import KNOWN
from raylab.results.schema import group

GROUP = "searched"
SAMPLES = "samples.parquet"


def column(key: str, taken: Iterable[str]) -> str:
    """The name of a key's column: its last word, where no other column has it."""
    names = key.rpartition(".")[2], key.replace(".", "_"), f"tune_{key.replace('.', '_')}"
    return next(name for name in names if name not in {*KNOWN, *taken} or name == names[-1])


def field(name: str, key: str, over: str, kind: type) -> pa.Field:
    """The field of a searched key. over: what it was searched over, in Hydra's words."""
    told = {"description": f"{key} of the config, searched over {over}", "group": GROUP}
    return pa.field(name, pa.float64() if kind is float else pa.string(), metadata=told)


def columns(of: pa.Schema) -> list[str]:
    """The columns of a results table that were searched."""
    return [each.name for each in of if group(each) == GROUP]


def write_samples(folder: Path, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Keep the samples of a search as <folder>/samples.parquet. Raises UserError where it cannot be written."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    temporary = folder / f".{SAMPLES}.tmp"
    try:
        pq.write_table(table, temporary)
        temporary.replace(folder / SAMPLES)
    except OSError as error:
        raise UserError(f"Cannot write {folder / SAMPLES}: {error.strerror or error}. The rows are kept.") from error
    return table


def read_samples(folder: str | Path) -> pa.Table | None:
    """The samples of a finished search; None where there was none."""
    path = Path(folder) / SAMPLES
    return pq.read_table(path) if path.is_file() else None
