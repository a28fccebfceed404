"""Rows on disk: immutable Parquet parts, each trial exactly once, whatever is killed and when.

A part is written under a name that every reader ignores (`.part-000001.parquet.4711.tmp`), synced, and linked to its
final name, so that it is there whole or not at all. Failed rows get parts of their own: to try them again is to
remove such a part, before and not after the new row is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylab.errors import UserError
from raylab.results import parts, schema
from raylab.types import TrialResult

DONE = ("ok", "skipped")


class ResultSink(Protocol):
    """Where results go."""

    def done(self) -> set[str]:
        """Ids of the trials that need not be run again."""
        ...

    def write(self, result: TrialResult) -> TrialResult:
        """Take one result; returns it as it will be recorded."""
        ...

    def close(self) -> None:
        """Commit what is left."""
        ...


class ParquetSink:
    """The one writer of a results folder; a context manager.

    `of` is the Arrow schema of the rows (`schema.schema(experiment.columns)`), `provenance` what all rows of this run
    have in common. Rows are committed when `flush_rows` are waiting, or the oldest has waited `flush_seconds` (seen
    at `write` and `tick`), and on `close`. Raises UserError where the folder is in use, cannot be written or holds a
    damaged part.
    """

    def __init__(
        self,
        folder: str | Path,
        of: pa.Schema,
        provenance: Mapping[str, Any],
        flush_rows: int = 1000,
        flush_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if unknown := sorted(set(provenance) - set(schema.PROVENANCE)):
            raise ValueError(f"'{unknown[0]}' is no column of provenance: {', '.join(schema.PROVENANCE)}")
        self.folder = Path(folder)
        self._trials = self.folder / parts.TRIALS
        self._schema, self._provenance = of, dict(provenance)
        self._flush_rows, self._flush_seconds, self._clock = flush_rows, flush_seconds, clock
        self._waiting: dict[str, list[dict[str, Any]]] = {"part": [], "failed": []}
        self._oldest = clock()
        self._publishing: tuple[Path, pa.Table] | None = None
        with _disk(self.folder):
            self._trials.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder)
        try:
            for stale in (*self._trials.glob(".*.tmp"), *self.folder.glob(f".{parts.RUN_INFO}.*.tmp")):
                stale.unlink(missing_ok=True)
            self._status, self._failed_in = parts.index(self.folder)
        except BaseException:
            os.close(self._lock)
            raise
        self._next = 1 + max((parts.number(part) for part in parts.paths(self.folder)), default=0)

    @property
    def status(self) -> Mapping[str, str]:
        """Status by trial id, of every row there is."""
        return self._status

    def done(self) -> set[str]:
        """Ids of trials whose row is ok or skipped."""
        return {trial for trial, status in self._status.items() if status in DONE}

    def failed(self) -> set[str]:
        """Ids of trials whose row is failed: give those to be run again to `retry`."""
        return {trial for trial, status in self._status.items() if status == "failed"}

    def retry(self, trial_ids: Iterable[str]) -> int:
        """Forget the failed rows of these trials, so that they can be written anew; returns how many.

        A part goes before what else it held comes back: a kill between the two costs a row, which is then run again,
        and never doubles one.
        """
        again = set(trial_ids) & self.failed()
        self.flush()
        for part in sorted({self._failed_in[trial] for trial in again}):
            table = parts.read(part)
            stays = table.filter(~np.isin(table["trial_id"].to_numpy(zero_copy_only=False), list(again)))
            with _disk(self.folder):
                part.unlink()
                _sync(self._trials)
                for trial in table["trial_id"].to_pylist():
                    del self._status[trial], self._failed_in[trial]
                if stays.num_rows:
                    self._publish("failed", stays)
        return len(again)

    def write(self, result: TrialResult) -> TrialResult:
        """Take one result. The first row of a trial wins: a later one, from a worker given up for lost, is dropped.

        A result that does not fit the schema (a column nobody declared, text for a number) is recorded as failed.
        """
        trial_id = result.trial.id
        if trial_id in self._status:
            return result
        row = schema.row(result, self._provenance)
        try:
            schema.convert([row], self._schema)
        except ValueError as error:
            result = dataclasses.replace(result, status="failed", values={}, error=f"{type(error).__name__}: {error}")
            row = schema.row(result, self._provenance)
        self._keep("failed" if result.status == "failed" else "part", row)
        self.tick()
        return result

    def tick(self) -> None:
        """Commit if rows are due. Call it now and then while no result comes in."""
        waiting = sum(map(len, self._waiting.values()))
        if waiting and (waiting >= self._flush_rows or self._clock() - self._oldest >= self._flush_seconds):
            self.flush()

    def flush(self) -> None:
        """Commit all rows that wait."""
        self._settle()
        for name in self._waiting:
            if self._waiting[name]:
                self._publish(name, schema.convert(self._waiting[name], self._schema))

    def close(self) -> None:
        """Commit what waits and let the next writer in. May be called twice."""
        if self._lock < 0:
            return
        try:
            self.flush()
        finally:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _keep(self, name: str, row: dict[str, Any]) -> None:
        if not any(self._waiting.values()):
            self._oldest = self._clock()
        self._waiting[name].append(row)
        self._status[row["trial_id"]] = row["status"]

    def _publish(self, name: str, table: pa.Table) -> None:
        final = self._trials / f"{name}-{self._next:06d}.parquet"
        with _disk(self.folder):
            if final.exists():
                raise FileExistsError(errno.EEXIST, f"{final.name} was put there by someone else")
            self._publishing = (final, table)
            publish(table, final)
        self._settle()

    def _settle(self) -> None:
        """Believe the disk: an interrupt (Ctrl-C) may have come just after a part took its name. May run twice."""
        if self._publishing is None:
            return
        final, table = self._publishing
        if final.exists():
            rows = zip(table["trial_id"].to_pylist(), table["status"].to_pylist(), strict=True)
            status = dict(rows)
            self._status |= status
            self._failed_in |= {trial: final for trial, outcome in status.items() if outcome == "failed"}
            for name, waiting in self._waiting.items():
                self._waiting[name] = [row for row in waiting if row["trial_id"] not in status]
            self._next = parts.number(final) + 1
        self._publishing = None


def publish(table: pa.Table, final: Path) -> None:
    """Write a part so that it appears whole or not at all. A name that is taken is an error: FileExistsError."""
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        _link(temporary, final)
        _sync(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, final: Path) -> None:
    try:
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links: the lock keeps others from taking the name between the two lines.
        if final.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        temporary.rename(final)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(folder: Path) -> int:
    """An exclusive lock on the folder, held until the handle is closed or the process dies, however it dies."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 200).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise UserError(
            f"{folder} is being written by another run ({holder}): wait for it, or choose results=ANOTHER_FOLDER."
        ) from None
    except OSError:
        os.close(handle)
        raise
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return handle


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the disk has to say, as one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write to {folder}: {reason}. Mend it and run the same command again: committed rows are kept."
        ) from error


def write_run_info(folder: str | Path, info: Mapping[str, Any]) -> None:
    """Keep what a run is in `<folder>/run.json`, atomically. For the writer: call it with the sink open.

    By convention: config (a dict), digest, command, versions (a dict), planned (number of trials), started_at (ISO).
    """
    target = Path(folder) / parts.RUN_INFO
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with _disk(Path(folder)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(info, file, indent=2, default=str)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync(target.parent)


def read_run_info(folder: str | Path) -> dict[str, Any]:
    """What `write_run_info` kept; empty where there is none. Raises UserError if it cannot be read."""
    path = Path(folder) / parts.RUN_INFO
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it; the next run writes it anew.") from error
