"""Rows where they last: immutable Parquet parts, each trial exactly once, whatever is killed and when.

A part is there whole or not at all, and of two that take one name the first wins (raylab/places). Its name is a running
number: who writes the next part has seen all before it. A writer that was taken for dead and is not finds that number
taken, or takes it from its successor, who then reads what is there, drops its own rows of the same trials, and goes on
with the number after. So no row is counted twice, without a clock or a lock that could be wrong (on hdfs://, where the
first does not win, a lock is all there is: raylab/places/lease.py). Failed rows get parts of their own: to try them
again is to remove such a part, before and not after the new row is written.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylab import places, redact
from raylab.places import Place
from raylab.results import estimate, parts, schema
from raylab.types import TrialResult

DAMAGED = "damaged"  # the folder, beside that of the parts, where damaged ones are kept
DONE = ("ok", "skipped")
MOST_FLUSHES = 100  # times `flush_rows` that may wait for a place that is out of reach


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

    `folder`: a path, a URL or a place. `of` is the Arrow schema of the rows (`schema.schema(experiment.columns)`),
    `provenance` what all rows of this run have in common. Rows are committed when `flush_rows` are waiting, or the
    oldest has waited `flush_seconds` (seen at `write` and `tick`), and on `close`. While the folder is out of reach
    they wait on (`outage` says why) and are tried again; `flush` and `close` try once. A damaged part is set aside, so
    that its trials are run again; `set_aside` says so, in a line each. Raises UserError where the folder is in use,
    cannot be written, or stays out of reach for a quarter of an hour.
    """

    def __init__(
        self,
        folder: parts.Where,
        of: pa.Schema,
        provenance: Mapping[str, Any],
        flush_rows: int = 1000,
        flush_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if unknown := sorted(set(provenance) - set(schema.PROVENANCE)):
            raise ValueError(f"'{unknown[0]}' is no column of provenance: {', '.join(schema.PROVENANCE)}")
        self.folder, self._trials = places.at(folder), parts.trials(folder)
        self._schema, self._provenance = of, dict(provenance)
        self._flush_rows, self._flush_seconds, self._clock = flush_rows, flush_seconds, clock
        self._waiting: dict[str, list[dict[str, Any]]] = {"ok": [], "failed": []}
        self._oldest = clock()
        self._publishing: tuple[str, pa.Table] | None = None
        self._outage = places.Outage(clock)
        self.set_aside: list[str] = []
        self.means = estimate.Means()  # seconds of the rows that were there as it was opened; a run adds its own
        with places.in_one_line(self.folder):
            self._lock = self.folder.lock()
        try:
            with places.in_one_line(self.folder):
                self.folder.tidy()
                self._trials.tidy()
                self._status, self._failed_in = self._there()
        except BaseException:
            self._lock.release()
            raise
        self._closed = False

    def _there(self) -> tuple[dict[str, str], dict[str, str]]:
        """Status by trial id, and the part of each failed row, of what is there and sound."""
        found = parts.names(self.folder)
        given = [*found, *(self.folder / DAMAGED).names()]
        self._next = 1 + max([self._lock.number, *map(parts.number, given)])
        with parts.opened(self.folder, found) as files:
            return parts.index(self._sound(files))

    def _sound(self, files: Sequence[parts.Part]) -> Iterator[tuple[parts.Part, pa.Table]]:
        """The parts of which every page can be read. Those that are damaged, read twice, are set aside."""
        for part in files:
            try:
                rows = parts.read_surely(self.folder, part)
            except parts.DamagedPartError as error:
                content = self._trials.read(part.path.name)
                (self.folder / DAMAGED).replace(part.path.name, lambda file, content=content: file.write(content))
                self._trials.remove(part.path.name)
                self.set_aside.append(
                    f"{str(error).partition(': run ')[0]}: it lies in {DAMAGED}/ now, and its trials are run again."
                )
                continue
            self.means.take(rows)
            yield part, rows

    @property
    def status(self) -> Mapping[str, str]:
        """Status by trial id, of every row there is."""
        return self._status

    @property
    def waiting(self) -> int:
        """Rows that are not committed yet."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_full(self) -> bool:
        """Whether so many wait for a folder that is out of reach that no more should come."""
        return self.waiting >= MOST_FLUSHES * self._flush_rows

    @property
    def outage(self) -> str | None:
        """Why rows wait longer than they should: the folder is out of reach. None where it answers."""
        return None if self._outage.reason is None else str(self._outage.reason)

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
        self._lock.remember(self._next - 1)
        for name in sorted({self._failed_in[trial] for trial in again}):
            with places.in_one_line(self.folder):
                with parts.opened(self.folder, [name]) as (part,):
                    table = parts.read(part)
                self._trials.remove(name)
            for trial in table["trial_id"].to_pylist():
                del self._status[trial], self._failed_in[trial]
            self._publish(_without(table, again))
        return len(again)

    def write(self, result: TrialResult) -> TrialResult:
        """Take one result. The first row of a trial wins: a later one, from a worker given up for lost, is dropped.

        A result that does not fit the schema (a column nobody declared, text for a number) is recorded as failed.
        """
        trial_id = result.trial.id
        if trial_id in self._status:
            return result
        result = dataclasses.replace(result, values=redact.texts(result.values))
        row = schema.row(result, self._provenance)
        try:
            row = schema.cells(row, self._schema)
        except ValueError as error:
            result = dataclasses.replace(result, status="failed", values={}, error=f"{type(error).__name__}: {error}")
            row = schema.cells(schema.row(result, self._provenance), self._schema)
        self._keep("failed" if result.status == "failed" else "ok", row)
        self.tick()
        return result

    def tick(self) -> None:
        """Commit if rows are due. Call it now and then while no result comes in."""
        waiting = self.waiting
        if waiting and (waiting >= self._flush_rows or self._clock() - self._oldest >= self._flush_seconds):
            self.commit()

    def commit(self) -> bool:
        """Commit all rows that wait. False: the folder is out of reach. Raises UserError where it long has been."""
        try:
            self.flush()
        except places.UnreachableError:
            if self._outage.is_long:
                raise
            return False
        return True

    def flush(self) -> None:
        """Commit all rows that wait. Raises UserError, at once where the folder was out of reach a moment ago."""
        self._outage.ask(self._flush)

    def _flush(self) -> None:
        self._settle()
        for kind in self._waiting:
            if self._waiting[kind]:
                self._publish(schema.table(self._waiting[kind], self._schema))

    def close(self) -> None:
        """Commit what waits and let the next writer in. May be called twice."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._lock.release()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _keep(self, name: str, row: dict[str, Any]) -> None:
        if not any(self._waiting.values()):
            self._oldest = self._clock()
        self._waiting[name].append(row)
        self._status[row["trial_id"]] = sys.intern(row["status"])

    def _publish(self, table: pa.Table) -> None:
        """A part of these rows. Where its number is taken, what took it counts, and the rest goes into the next."""
        while table.num_rows:
            name = f"part-{self._next:06d}.parquet"
            with places.in_one_line(self.folder):
                self._lock.check()
                self._publishing = (name, table)
                try:
                    publish(table, self._trials, name)
                except FileExistsError:
                    self._lock.check(now=True)
                    table = _without(table, self._settle())
                    continue
            self._believe(name, table)
            return

    def _settle(self) -> set[str]:
        """Believe the place: an interrupt (Ctrl-C) may have come just after a part took its name. May run twice.

        Returns the trials of that part.
        """
        if self._publishing is None:
            return set()
        name, _ = self._publishing
        if name not in self._trials.names():
            self._publishing = None
            return set()
        with places.in_one_line(self.folder), parts.opened(self.folder, [name]) as (part,):
            return self._believe(name, parts.read(part))

    def _believe(self, name: str, table: pa.Table) -> set[str]:
        """These rows are committed."""
        status = dict(parts.outcomes(table))
        self._status |= status
        self._failed_in |= {trial: name for trial, outcome in status.items() if outcome == "failed"}
        for kind, waiting in self._waiting.items():
            self._waiting[kind] = [row for row in waiting if row["trial_id"] not in status]
        self._next = parts.number(name) + 1
        self._publishing = None
        return set(status)


def _without(table: pa.Table, trials: set[str]) -> pa.Table:
    return table.filter(~np.isin(table["trial_id"].to_numpy(zero_copy_only=False), list(trials)))


def publish(table: pa.Table, home: Place, name: str) -> None:
    """Write a part so that it appears whole or not at all. A name that is taken is an error: FileExistsError."""

    def write(file: IO[bytes]) -> None:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)

    home.create(name, write)
