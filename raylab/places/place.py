"""What results, checkpoints and reports ask of where they lie, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from raylab.errors import UserError

Write = Callable[[IO[bytes]], object]  # puts the content of a file into a stream


class UnreachableError(UserError):
    """A place does not answer, or not now. It may later: what was to be written is not refused."""


class Lock(Protocol):
    """The right to write to a place, until it is released or the process dies, however it dies."""

    number: int  # the highest that a holder of the lock has asked to be remembered; 0 at first

    def check(self, now: bool = False) -> None:
        """Raise UserError where it is known to be another's by now. now: ask the place, whatever that costs."""
        ...

    def remember(self, number: int) -> None:
        """Tell holders to come of a number: before it is forgotten otherwise."""
        ...

    def release(self) -> None:
        """Let the next one in. May be called twice."""
        ...


class Place(Protocol):
    """A folder, local or not. Names are of files directly in it; those with a leading dot are nobody's but its own.

    Errors are OSErrors or, where the reason is known and is not the file, UserErrors: UnreachableError where the same
    may go well later.
    """

    def __truediv__(self, name: str) -> Place:
        """The folder of that name in it."""
        ...

    def absolute(self) -> Place:
        """The same place, seen from another working directory."""
        ...

    def file(self, name: str) -> str | Path:
        """Where a person finds a file."""
        ...

    def check(self) -> None:
        """Raise UserError where no results can lie here: a file is in the way, a bucket is missing, or a right."""
        ...

    def exists(self) -> bool:
        """Whether there is such a folder, with something in it where folders are but the names of files."""
        ...

    def names(self) -> list[str]:
        """The files, sorted; none where there is no such folder."""
        ...

    def folders(self) -> list[str]:
        """The folders, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""
        ...

    def local(self, names: Sequence[str]) -> AbstractContextManager[list[Path]]:
        """Files as this machine can open them: they themselves or, for so long, copies. Raises FileNotFoundError."""
        ...

    def create(self, name: str, write: Write) -> None:
        """A new file, there whole or not at all. Of two that create one name the first wins: FileExistsError.

        Except on hdfs:// and the like, where of two at the same instant the last does: see `Remote.first_wins`.
        """
        ...

    def replace(self, name: str, write: Write) -> None:
        """A file, new or in place of an old one, there whole or not at all."""
        ...

    def remove(self, name: str) -> None:
        """Let go of a file, if there is one."""
        ...

    def written(self) -> AbstractContextManager[Path]:
        """A local folder to write files into, folders among them: they lie here in the end."""
        ...

    def tidy(self) -> None:
        """Remove what writers that were killed have left. For who holds the lock."""
        ...

    def lock(self) -> Lock:
        """The right to write. Raises UserError where another has it."""
        ...


@contextmanager
def in_one_line(place: Place) -> Iterator[None]:
    """What a disk has to say to who writes to a place, as a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write to {place}: {reason}. Mend it and run the same command again: committed rows are kept."
        ) from error
