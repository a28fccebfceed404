"""Who writes, where nothing can be locked: numbered leases, of which the newest holds.

A lease is a file that is created first-wins, `000007.lease`; beside it `000007.beat` is written anew every few seconds
for as long as its owner lives. Who finds one waits until the beat changes (its owner lives) or has not changed for
EXPIRY seconds by the watcher's own clock (its owner is gone): clocks of two machines are never compared. An owner that
was taken for dead and is not learns of it with its next beat, or as a name that it wants is taken; see
raylab.results.sink for why nothing that it wrote meanwhile is lost or counted twice.

Where the first does not win, as on hdfs://, the last to write a lease has it: whoever has written one reads it again
after SURE seconds, and holds it where it still is its own and nobody beats under its number. At each beat, and before
each commit, it looks whether another does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from raylab.errors import UserError
from raylab.places import haste
from raylab.places.folder import holder_here, in_use
from raylab.places.place import Place

BEAT = 5.0  # seconds
SURE = 5.0  # seconds in which who has seen that a name is free has taken it
EXPIRY = 20.0  # seconds without a beat after which an owner is taken for gone
RELEASED = "released"


class Lease:
    """See Lock. `home`: where leases lie; `of`: the place that is written to, for a person.

    decides: whether the place decides between two that create a name.
    """

    def __init__(
        self, home: Place, of: str, beat: float = BEAT, expiry: float = EXPIRY, decides: bool = True, sure: float = SURE
    ) -> None:
        self._home, self._of, self._every, self._decides = home, of, beat, decides
        last = _newest(home)
        holder = _read(home, _lease(last)) if last else {}
        if last and not _over(home, last, holder, expiry):
            raise in_use(of, holder.get("owner", "unknown"))
        self._mine, self._lost, self._beats = last + 1, False, 0
        self.number = int(_read(home, _beat(last)).get("number", 0)) if last else 0
        self._token = uuid.uuid4().hex
        owner = {"owner": holder_here(), "machine": _machine(), "pid": os.getpid(), "token": self._token}
        try:
            _write(home, _lease(self._mine), owner, new=True)
        except FileExistsError:
            other = _read(home, _lease(self._mine)).get("owner", "unknown")
            raise in_use(of, other) from None
        if not decides:
            time.sleep(sure)
            if (now := _read(home, _lease(self._mine))).get("token") != self._token or self._is_beaten():
                raise in_use(of, now.get("owner", "unknown"))
        self._say()
        for number in range(max(1, last - 1), last + 1):
            home.remove(_lease(number))
            home.remove(_beat(number))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="raylab-lease", daemon=True)
        self._thread.start()

    def check(self, now: bool = False) -> None:
        """Raise UserError where there is a newer lease, as far as is known."""
        if now or not self._decides:  # where nothing else keeps one who was taken for dead from its successor's names
            self._lost = self._lost or self._is_over()
        if self._lost:
            other = _read(self._home, _lease(_newest(self._home))).get("owner", "unknown")
            raise UserError(
                f"{self._of} was taken over by another run ({other}), which goes on with what is missing: this one was "
                f"silent for so long (asleep, or cut off) that it was taken for dead, and ends here."
            )

    def remember(self, number: int) -> None:
        """Tell holders to come of a number."""
        self.number = max(number, self.number)
        self._say()

    def release(self) -> None:
        """Let the next one in at once."""
        if not self._stop.is_set():
            self._stop.set()
            haste.join(self._thread)
            if not self._lost:
                with contextlib.suppress(UserError, OSError):  # a lease that is not given back expires
                    self._say(RELEASED)

    def _live(self) -> None:
        while not self._stop.wait(self._every):
            with contextlib.suppress(Exception):  # what is not reached now may be reached the next time
                self._lost = self._lost or self._is_over()
                if self._lost:
                    return
                self._say()

    def _is_over(self) -> bool:
        return _newest(self._home) > self._mine or (not self._decides and self._is_beaten())

    def _is_beaten(self) -> bool:
        """Whether another beats under this number."""
        return _read(self._home, _beat(self._mine)).get("token", self._token) != self._token

    def _say(self, state: str = "alive") -> None:
        self._beats += 1
        beat = {"beat": self._beats, "state": state, "number": self.number, "token": self._token}
        _write(self._home, _beat(self._mine), beat, new=False)


def _over(home: Place, number: int, holder: dict[str, Any], expiry: float) -> bool:
    """Whether a lease was given back, or its owner has not been heard of for so long."""
    first = _read(home, _beat(number))
    known = first.get("token", holder.get("token")) == holder.get("token")  # the one who beats wrote the lease
    if first.get("state") == RELEASED or (known and _dead(holder)):
        return True
    until = time.monotonic() + expiry
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, expiry / 10))
        now = _read(home, _beat(number))
        if now != first:
            return now.get("state") == RELEASED
    return True


def _dead(holder: dict[str, Any]) -> bool:
    """Whether the owner is known to be gone: it was a process of this machine, and there is no such process."""
    if not holder or holder.get("machine") != _machine():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _machine() -> str:
    """What tells machines, and containers on them, apart: names need not be different."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _newest(home: Place) -> int:
    return max((int(name[:-6]) for name in home.names() if name.endswith(".lease")), default=0)


def _lease(number: int) -> str:
    return f"{number:06d}.lease"


def _beat(number: int) -> str:
    return f"{number:06d}.beat"


def _read(home: Place, name: str) -> dict[str, Any]:
    """What a file says; nothing where there is none."""
    try:
        return json.loads(home.read(name))
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"beat": "unreadable"}


def _write(home: Place, name: str, what: dict[str, Any], new: bool) -> None:
    text = json.dumps(what).encode()
    (home.create if new else home.replace)(name, lambda file: file.write(text))
