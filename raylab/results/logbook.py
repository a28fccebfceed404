"""logs/ of a results folder: what workers and libraries said, a file a process, bounded, without secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from raylab import places, redact
from raylab.errors import LOGS, UserError
from raylab.results.parts import Where
from raylab.types import TrialResult

MOST_BYTES = 512 * 1024  # of a file; one that is full becomes FILE.old, in place of the one before: the end is kept
MOST_FILES = 200  # of a folder: when a run begins, the oldest go
_NAMED = re.compile(rf"{LOGS}/([\w.-]+)\.log")


class Logbook:
    """Lines by the name of a process, HOST-PID. Any thread may write; a disk that refuses costs lines, not the run.

    On S3 nothing can be added to a file: lines are kept on this machine, and sent with each beat of the heart.
    """

    def __init__(self, folder: Where, most_bytes: int = MOST_BYTES) -> None:
        self._home = places.at(folder) / LOGS
        self._far_away = not isinstance(self._home, places.Folder)
        self.folder = Path(tempfile.mkdtemp(prefix="raylab-logs-") if self._far_away else str(self._home))
        if self._far_away:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._most, self._door, self._sending = most_bytes, threading.Lock(), threading.Lock()
        self._sent: dict[Path, int] = {}  # when a log was last changed that is where it belongs, in ns
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            there = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for old in there[: max(0, len(there) - MOST_FILES)]:
                old.unlink()

    def send(self) -> None:
        """Bring what has changed to where the results are, if that is not a folder of this machine.

        Nothing where another thread is at it: the heart, whose last beat sends what is left. Who writes does not wait.
        """
        if not self._far_away or not self._sending.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(OSError, UserError):
                for path in sorted(self.folder.iterdir()):
                    self._send(path)
        finally:
            self._sending.release()

    def _send(self, path: Path) -> None:
        with self._door:  # only for as long as a disk takes
            changed = path.stat().st_mtime_ns
            if self._sent.get(path) == changed:
                return
            content = path.read_bytes()
        self._home.replace(path.name, lambda file: file.write(content))
        self._sent[path] = changed

    def write(self, name: str, lines: Sequence[str]) -> None:
        """More lines of a process."""
        now = datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00")
        text = "".join(f"{now} {redact.text(line)}\n" for line in lines)[-self._most :]
        path = self.folder / f"{re.sub(r'[^a-zA-Z0-9_.-]', '_', name)}.log"
        with self._door, contextlib.suppress(OSError):
            if path.exists() and path.stat().st_size + len(text) > self._most:
                path.replace(path.with_suffix(".log.old"))
            with path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)

    def failed(self, result: TrialResult) -> None:
        """What went wrong with a trial, in the log of the worker that its error names."""
        trial, named = result.trial, _NAMED.search(result.error or "")
        what = (
            trial.model,
            f"replicate {trial.replicate}",
            trial.layer or "whole model",
            trial.perturbation,
            trial.draw,
        )
        lines = [f"trial {trial.id} failed: {', '.join(map(str, what))}", *(result.error or "").splitlines()]
        self.write(named[1] if named else own_name(), lines)

    @contextlib.contextmanager
    def of_this_process(self) -> Iterator[None]:
        """Warnings and log records of this process go here, instead of onto the terminal."""
        handler, root = _ToBook(self), logging.getLogger()
        logging.captureWarnings(True)
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)
            logging.captureWarnings(False)
            self.send()


class _ToBook(logging.Handler):
    def __init__(self, book: Logbook) -> None:
        super().__init__(logging.WARNING)
        self._book = book
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._book.write(own_name(), self.format(record).splitlines())


def own_name() -> str:
    """HOST-PID of this process."""
    return f"{socket.gethostname()}-{os.getpid()}"
