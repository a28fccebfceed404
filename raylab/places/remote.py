"""What places that are not on this machine have in common, whatever their scheme."""

from __future__ import annotations

import contextlib
import io
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from raylab.places.lease import Lease
from raylab.places.place import Write

AT_ONCE = 16  # files that are fetched or sent at the same time


@dataclass(frozen=True)
class Remote(ABC):
    """See Place. `url` has no slash at its end. A file is written in one go and is not seen before it is whole."""

    url: str

    @property
    def first_wins(self) -> bool:
        """Whether it decides between two that create a name at the same time."""
        return True

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Self:
        return replace(self, url=f"{self.url}/{name}")

    def absolute(self) -> Self:
        """A URL is the same from everywhere."""
        return self

    def file(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.url}/{name}"

    def check(self) -> None:
        """Raise UserError where it cannot be listed."""
        self.names()

    def exists(self) -> bool:
        """Whether anything lies there."""
        return any(self._listed())

    def names(self) -> list[str]:
        """The files, sorted, without hidden ones."""
        return sorted(name for name in self._listed()[0] if not name.startswith("."))

    def folders(self) -> list[str]:
        """The folders, sorted, without hidden ones."""
        return sorted(name for name in self._listed()[1] if not name.startswith("."))

    @contextlib.contextmanager
    def local(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Copies, for so long."""
        with tempfile.TemporaryDirectory(prefix="raylab-") as folder, ThreadPoolExecutor(AT_ONCE) as threads:
            paths = [Path(folder) / name for name in names]

            def fetch(path: Path) -> None:
                path.write_bytes(self.read(path.name))

            list(threads.map(fetch, paths))
            yield paths

    def create(self, name: str, write: Write) -> None:
        """A new file: the first wins."""
        self._put(name, _content(write), new=True)

    def replace(self, name: str, write: Write) -> None:
        """A file, in place of any that has its name."""
        self._put(name, _content(write), new=False)

    @contextlib.contextmanager
    def written(self) -> Iterator[Path]:
        """A temporary folder, whose files are sent in the end."""
        with tempfile.TemporaryDirectory(prefix="raylab-") as folder, ThreadPoolExecutor(AT_ONCE) as threads:
            yield Path(folder)

            def send(path: Path) -> None:
                home = self
                for name in path.relative_to(folder).parts[:-1]:
                    home = home / name
                home.replace(path.name, lambda file: file.write(path.read_bytes()))

            list(threads.map(send, sorted(path for path in Path(folder).rglob("*") if path.is_file())))

    def tidy(self) -> None:
        """Remove temporary files."""
        for name in self._listed()[0]:
            if name.startswith(".") and name.endswith(".tmp"):
                self.remove(name)

    def lock(self) -> Lease:
        """A lease, as there are no locks. Raises UserError where another run lives that has it."""
        return Lease(self / "lock", of=str(self), decides=self.first_wins)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Let go of a file, if there is one."""

    @abstractmethod
    def _listed(self) -> tuple[list[str], list[str]]:
        """The names of files and of folders directly in it."""

    @abstractmethod
    def _put(self, name: str, data: bytes, new: bool) -> None:
        """A file. Raises FileExistsError where it is to be new and is not."""


def _content(write: Write) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()
