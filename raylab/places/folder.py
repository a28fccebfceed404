"""A local folder. A file is written under a name that every reader ignores, synced, and then given its own name."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raylab.errors import UserError
from raylab.places.place import Write

TEMPORARY = re.compile(r"^\..*\.\d+\.tmp$")
_Wanted = Callable[[os.DirEntry[str]], bool]


@dataclass(frozen=True)
class Folder:
    """See Place. Errors are OSErrors."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name)

    def absolute(self) -> Folder:
        """The same folder, seen from another working directory."""
        return Folder(self.path.absolute())

    def file(self, name: str) -> Path:
        """The path of a file."""
        return self.path / name

    def check(self) -> None:
        """Raise UserError where a file is in the way."""
        if self.exists() or not self.path.exists():
            return
        raise UserError(f"results={self.path} is a file, not a folder: choose another.")

    def exists(self) -> bool:
        """Whether there is such a folder."""
        return self.path.is_dir()

    def names(self) -> list[str]:
        """The files, sorted, without hidden ones."""
        return self._entries(lambda entry: entry.is_file())

    def folders(self) -> list[str]:
        """The folders, sorted, without hidden ones."""
        return self._entries(lambda entry: entry.is_dir())

    def read(self, name: str) -> bytes:
        """A whole file."""
        return (self.path / name).read_bytes()

    @contextlib.contextmanager
    def local(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """The files themselves."""
        yield [self.path / name for name in names]

    def create(self, name: str, write: Write) -> None:
        """A new file, by a hard link: the first wins."""
        with self._whole(name, write) as temporary:
            _link(temporary, self.path / name)

    def replace(self, name: str, write: Write) -> None:
        """A file, by renaming."""
        with self._whole(name, write) as temporary:
            temporary.replace(self.path / name)

    def remove(self, name: str) -> None:
        """Let go of a file, and see to it that it does not come back."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).unlink()
            _sync(self.path)

    @contextlib.contextmanager
    def written(self) -> Iterator[Path]:
        """The folder itself."""
        yield self.path

    def tidy(self) -> None:
        """Remove temporary files."""
        if self.exists():
            for path in self.path.iterdir():
                if TEMPORARY.match(path.name):
                    path.unlink(missing_ok=True)

    def lock(self) -> FolderLock:
        """An exclusive lock on the folder. Raises UserError where another process has it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path)) from None
        return FolderLock(self.path)

    def _entries(self, wanted: _Wanted) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith(".") and wanted(entry))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @contextlib.contextmanager
    def _whole(self, name: str, write: Write) -> Iterator[Path]:
        """A temporary file with all that `write` writes, on the disk; its new name is as well, in the end."""
        self.path.mkdir(parents=True, exist_ok=True)
        writer = f"{socket.gethostname()}.{threading.get_native_id()}"  # of a main thread the id of its process
        temporary = self.path / f".{name}.{writer}.tmp"
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
            _sync(self.path)
        finally:
            temporary.unlink(missing_ok=True)


class FolderLock:
    """A lock of the operating system: it ends with the process that holds it, however that ends."""

    number = 0

    def __init__(self, folder: Path) -> None:
        self._handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._handle, 200).decode(errors="replace").strip() or "unknown"
            self.release()
            raise in_use(str(folder), holder) from None
        except OSError:
            self.release()
            raise
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, holder_here().encode(), 0)

    def check(self, now: bool = False) -> None:
        """Nobody takes it away."""

    def remember(self, number: int) -> None:
        """Nobody else writes while it is held: what is there says all."""

    def release(self) -> None:
        """Let the next one in."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def holder_here() -> str:
    """This process, in words."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def in_use(place: str, holder: str) -> UserError:
    """The line for a place that another run writes to."""
    return UserError(
        f"{place} is being written by another run ({holder}): wait for it, or choose results=ANOTHER_FOLDER."
    )


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
