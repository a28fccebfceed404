"""How a results folder stands, from any machine that sees it, without a lock and without reading its rows.

Numbers come from the footers of the Parquet parts, which hold how many rows there are and whether they failed. What
the driver says of itself (raylab.results.heartbeat) is believed about its pace, and that it lives only when its beat is
seen to change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raylab import places
from raylab.errors import UserError, last_line
from raylab.places import Place
from raylab.results import heartbeat, parts
from raylab.results.run_info import read_run_info

RUNNING, DONE, FAILED, STOPPED, DEAD = "running", "finished", "finished, some failed", "unfinished", "no sign of life"
NOBODY = (STOPPED, DEAD)


@dataclass(frozen=True, kw_only=True)
class Status:
    """How one folder stands. Times are those of the driver's clock, in UTC."""

    folder: str
    state: str  # RUNNING, DONE, FAILED, STOPPED (it ended, or says nothing) or DEAD (it did not end, and does not beat)
    ended: str | None  # how the driver ended: finished, interrupted, refused, crashed; None: it did not say so
    reason: str | None  # why, where it was refused
    planned: int | None  # trials of the last command
    done: int  # rows of those that are ok or skipped
    failed: int
    damaged: tuple[str, ...]  # parts that are: the next run works their trials again
    host: str | None  # of the driver
    pid: int | None
    workers: int | None
    started_at: str | None
    elapsed: float | None  # seconds, of the driver, when it last said something
    rate: float | None  # trials a second since then
    remaining: float | None  # seconds to go, while it runs
    last_row: dict[str, Any] | None  # at, trial, status
    last_error: dict[str, Any] | None  # at, trial, error (its last line)
    command: str | None


class Watcher:
    """Looks at folders again and again; a part that was counted is not opened again."""

    def __init__(self, folders: Sequence[parts.Where]) -> None:
        self._folders = [places.at(folder) for folder in folders]
        self._counted: dict[str, tuple[int, int]] = {}
        self._damaged: set[str] = set()

    def look(self) -> list[Status]:
        """How they stand now. Takes a beat, or a few of one that is dead.

        Raises UserError where there is no run, UnreachableError where a folder is out of reach.
        """
        for folder in self._folders:
            _require(folder)
        alive = heartbeat.alive(self._folders)
        return [self._status(folder, alive[folder]) for folder in self._folders]

    def _status(self, folder: Place, alive: bool) -> Status:
        info, beat = read_run_info(folder), heartbeat.read(folder)
        rows, failed, damaged = self._count(folder)
        planned = info.get("planned")
        done = max(0, rows - int(beat.get("others") or 0))
        failed = max(0, failed - int(beat.get("others_failed") or 0))
        error = beat.get("last_error")
        state = _state(alive, beat, planned, done, failed)
        return Status(
            folder=str(folder),
            state=state,
            ended=beat.get("state") if beat.get("state") != heartbeat.RUNNING else None,
            reason=beat.get("reason"),
            planned=planned,
            done=done,
            failed=failed,
            damaged=damaged,
            host=beat.get("host"),
            pid=beat.get("pid"),
            workers=beat.get("workers"),
            started_at=info.get("started_at"),
            elapsed=beat.get("elapsed"),
            rate=beat.get("rate"),
            remaining=beat.get("remaining") if state == RUNNING else None,
            last_row=beat.get("last_row"),
            last_error={**error, "error": last_line(error["error"])} if error and failed else None,
            command=info.get("command"),
        )

    def _count(self, folder: Place) -> tuple[int, int, tuple[str, ...]]:
        """Rows that did not fail, rows that did, by the parts' footers; the parts that are damaged.

        Raises UserError for one that the disk or the system does not let be read.
        """
        home, there = parts.trials(folder), parts.names(folder)
        files = [str(home.file(name)) for name in there]
        for name, file in zip(there, files, strict=True):
            if file not in self._counted:
                # Failed rows, which a starting run tries again, may be gone by now.
                with contextlib.suppress(FileNotFoundError), parts.opened(folder, [name]) as (part,):
                    try:
                        self._counted[file] = parts.count(part)
                    except parts.DamagedPartError:
                        self._counted[file] = (0, 0)
                        self._damaged.add(file)
        counted = [self._counted.get(file, (0, 0)) for file in files]
        damaged = tuple(file for file in files if file in self._damaged)
        return sum(good for good, _ in counted), sum(failed for _, failed in counted), damaged


def _require(folder: Place) -> None:
    if not folder.exists():
        raise UserError(
            f"There is no folder {folder}: give the results folder of a run, such as results/digits. One that has just "
            "begun makes it within seconds."
        )
    if not read_run_info(folder):
        raise UserError(f"{folder} is no results folder: it has no {parts.RUN_INFO}.")


def _state(alive: bool, beat: dict[str, Any], planned: int | None, done: int, failed: int) -> str:
    if alive:
        return RUNNING
    if planned is not None and done + failed >= planned:
        return FAILED if failed else DONE
    return DEAD if beat.get("state") == heartbeat.RUNNING else STOPPED
