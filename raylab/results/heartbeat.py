"""Signs of life of the driver of a results folder: status.json, written anew every few seconds with a higher number.

Whoever reads it sees the number change, or not: neither the clocks of two machines nor a process list are needed. The
beat comes from a thread of its own, so that a driver that sits in LAPACK for minutes is alive.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from raylab import places, redact
from raylab.errors import UserError
from raylab.places import Place
from raylab.results.parts import Where

FILE = "status.json"
EVERY = 2.0  # seconds from one beat to the next
EVERY_FAR_AWAY = 10.0  # where each is a request that is paid for
PATIENCE = 4.0  # beats that a reader waits for one: a machine may be busy, a file system may be slow to tell
RUNNING, FINISHED, INTERRUPTED, CRASHED, REFUSED = "running", "finished", "interrupted", "crashed", "refused"
LOOKS = 10  # of a reader, from one beat to the next


class Heart:
    """Beats while its block lasts. `says` gives what else each beat tells, as plain data."""

    def __init__(self, folder: Where, says: Callable[[], Mapping[str, Any]], every: float | None = None) -> None:
        self._folder, self._says = places.at(folder), says
        self._every = every or (EVERY if isinstance(self._folder, places.Folder) else EVERY_FAR_AWAY)
        self._number = int(read(self._folder).get("beat") or 0)  # higher than those of earlier drivers
        self.outage: str | None = None  # why the last beat did not come to where it belongs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raylab-heart", daemon=True)

    def __enter__(self) -> Self:
        self._beat(RUNNING)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        places.haste.join(self._thread)
        interrupted = isinstance(error, (KeyboardInterrupt, GeneratorExit))
        why = {"reason": str(error)} if isinstance(error, UserError) else {}
        self._beat(FINISHED if error is None else INTERRUPTED if interrupted else REFUSED if why else CRASHED, why)

    def interrupt(self) -> None:
        """The last beat, where the process is about to end without leaving the block."""
        if not self._over.is_set():
            self._over.set()
            self._beat(INTERRUPTED)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self._beat(RUNNING)

    def _beat(self, state: str, more: Mapping[str, str] | None = None) -> None:
        self._number += 1
        here = {"host": socket.gethostname(), "pid": os.getpid()}
        try:
            about = {"beat": self._number, "every": self._every, "state": state, **here}
            write(self._folder, {**about, **self._says(), **(more or {})})
            self.outage = None
        except places.UnreachableError as error:
            self.outage = str(error)
        except Exception:  # a full disk is told by the rows; whatever it is, the next beat must come
            self.outage = None


def write(folder: Where, beat: Mapping[str, Any]) -> None:
    """Put a beat into a folder, whole or not at all."""
    text = json.dumps(redact.plain(beat), indent=2).encode()
    places.at(folder).replace(FILE, lambda file: file.write(text))


def read(folder: Where) -> dict[str, Any]:
    """The last beat of a folder; empty where there was none, or it cannot be read.

    Raises UnreachableError where the folder is out of reach: that is no news of who writes there.
    """
    try:
        found = json.loads(places.at(folder).read(FILE))
    except places.UnreachableError:
        raise
    except (OSError, ValueError):  # a UserError is of the latter
        return {}
    return found if isinstance(found, dict) else {}


def alive(folders: Iterable[Place]) -> dict[Place, bool]:
    """Whether a driver is at work on each folder: whether its beat is seen to change.

    Returns as soon as all are known: at once for those that say they have ended, within a beat of one that lives, after
    `PATIENCE` beats of one that does not. Raises UnreachableError: of what is out of reach nobody knows.
    """
    first = {folder: read(folder) for folder in folders}
    watched = {folder: beat for folder, beat in first.items() if beat.get("state") == RUNNING}
    found = dict.fromkeys(first, False)
    began = time.monotonic()
    while watched:
        for folder, beat in list(watched.items()):
            changed = read(folder).get("beat") != beat.get("beat")
            if changed or time.monotonic() - began > PATIENCE * _every(beat):
                found[folder] = changed
                del watched[folder]
        if watched:
            time.sleep(min(map(_every, watched.values())) / LOOKS)
    return found


def _every(beat: Mapping[str, Any]) -> float:
    return float(beat.get("every") or EVERY)
