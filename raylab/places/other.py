"""Any other URL, through fsspec and the package that serves its scheme.

Object stores (gs:// with gcsfs, az:// with adlfs, memory://) take a file in one go, and create it first-wins by their
protocol. Where files are streams, a file gets a hidden name and is then moved: on sftp:// by a rename that is refused
where the name is taken, so the first wins there too. On hdfs:// whoever moves last wins: there the lease alone keeps
two writers apart (raylab.places.lease), and a part of one who was taken for dead, and wakes in the instant in which
its successor takes the same name, can be lost.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raylab.errors import UserError, first_line
from raylab.places import haste
from raylab.places.place import UnreachableError
from raylab.places.reach import is_of_the_way
from raylab.places.remote import Remote

# pyarrow could serve these as well, but writes over what is there, whatever it is told: rows of two writers would mix.
_SERVED_BY = {
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "`uv sync --extra gcp`, or `pip install gcsfs`")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("adlfs", "`uv pip install adlfs`, or `pip install adlfs`")),
    **dict.fromkeys(("sftp", "ssh"), ("paramiko", "`uv pip install paramiko`, or `pip install paramiko`")),
}


@dataclass(frozen=True)
class Other(Remote):
    """SCHEME://... . Errors are one line each, FileNotFoundError and FileExistsError apart."""

    @property
    def first_wins(self) -> bool:
        """Whether the system decides between two that create a name."""
        return _takes_whole_files(self._system) or _renames(self._system)

    def check(self) -> None:
        """Raise UserError where it cannot be listed."""
        self._listed()

    def read(self, name: str) -> bytes:
        """A whole file."""
        with self._asking():
            return self._system.cat_file(self._path(name))

    def remove(self, name: str) -> None:
        """Let go of a file, if there is one."""
        with contextlib.suppress(FileNotFoundError), self._asking():
            self._system.rm_file(self._path(name))

    def _put(self, name: str, data: bytes, new: bool) -> None:
        with self._asking():
            system, path = self._system, self._path(name)
            if _takes_whole_files(system):
                system.pipe_file(path, data, mode="create" if new else "overwrite")
                return
            hidden = self._path(f".{name}.{uuid.uuid4().hex}.tmp")
            system.makedirs(self._path("").rstrip("/"), exist_ok=True)
            system.pipe_file(hidden, data)
            try:
                (_name_first if new else _name)(system, hidden, path)
            except FileExistsError:
                system.rm_file(hidden)
                raise

    def _listed(self) -> tuple[list[str], list[str]]:
        with contextlib.suppress(FileNotFoundError), self._asking():
            system = self._system
            here = system.ls(self._path("").rstrip("/"), detail=True, **_refreshing(type(system)))
            found = [(each["name"].rstrip("/").rpartition("/")[2], each["type"] == "directory") for each in here]
            return [name for name, is_folder in found if not is_folder], [name for name, is_ in found if is_]
        return [], []

    @property
    def _system(self) -> Any:
        return _system(self._root)

    @property
    def _root(self) -> str:
        return "/".join(self.url.split("/")[:3])

    def _path(self, name: str) -> str:
        return f"{self._system._strip_protocol(self.url).rstrip('/')}/{name}"

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """What the library has to say, as one line."""
        with haste.asking(self.url), _door(self._root):
            try:
                yield
            except (FileNotFoundError, FileExistsError, UserError):
                raise
            except Exception as error:  # every library has exceptions of its own
                if away := is_of_the_way(error):
                    _system.cache_clear()  # a connection that is lost is of no more use
                raise (UnreachableError if away else UserError)(
                    f"{self.url} cannot be used ({first_line(error)}): mend it and run the same command again; "
                    "committed rows are kept."
                ) from error


def _takes_whole_files(system: Any) -> bool:
    """Whether a file system writes a file in one go: it then has a way of its own, not that of streams."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    kind = type(system)
    if isinstance(system, AsyncFileSystem):
        return kind._pipe_file is not AsyncFileSystem._pipe_file
    return kind.pipe_file is not AbstractFileSystem.pipe_file


def _renames(system: Any) -> bool:
    """Whether it is that of sftp, whose protocol has two ways to move a file: one is refused where there is one."""
    return hasattr(getattr(system, "ftp", None), "posix_rename")


def _name(system: Any, hidden: str, path: str) -> None:
    if not _renames(system) and system.exists(path):
        system.rm_file(path)
    system.mv(hidden, path)


def _name_first(system: Any, hidden: str, path: str) -> None:
    if system.exists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    if not _renames(system):
        system.mv(hidden, path)
        return
    try:
        system.ftp.rename(hidden, path)
    except OSError:
        if not system.exists(path):
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None


@functools.cache
def _system(url: str) -> Any:
    """The file system of a scheme and a host or bucket."""
    import fsspec

    scheme = url.partition("://")[0].lower()
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise _needs(scheme, error) from error
    except ValueError as error:
        known = "give a folder, s3://, gs://, az://, hdfs:// or sftp://."
        raise UserError(f"{scheme}:// is served by nothing here: {known}") from error
    options = {"use_listings_cache": False} if _keeps_listings(kind) else {}
    try:
        return fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)[0]
    except Exception as error:  # every library has exceptions of its own
        kind = UnreachableError if is_of_the_way(error) else UserError
        raise kind(f"{url} cannot be opened ({first_line(error)}): mend it and run the same command again.") from error


@functools.cache
def _door(url: str) -> contextlib.AbstractContextManager[object]:
    """One at a time where a connection is not for several threads: paramiko mixes up their answers."""
    return threading.RLock() if _renames(_system(url)) else contextlib.nullcontext()


def _needs(scheme: str, error: ImportError) -> UserError:
    if scheme in _SERVED_BY:
        package, install = _SERVED_BY[scheme]
        return UserError(f"{scheme}:// needs {package}: {install}.")
    says = str(error).rstrip(".").replace("\n", " ")
    return UserError(f"{scheme}:// needs a package that is not installed: {says}.")


def _keeps_listings(kind: type) -> bool:
    """Whether options that it does not know, as that of fsspec's cache, do no harm: sftp hands all to its library."""
    from fsspec.asyn import AsyncFileSystem

    return issubclass(kind, AsyncFileSystem) or "use_listings_cache" in inspect.signature(kind.__init__).parameters


@functools.cache
def _refreshing(kind: type) -> dict[str, bool]:
    """How to list anew what may be remembered."""
    named = inspect.signature(getattr(kind, "_ls", kind.ls)).parameters
    return {word: True for word in ("refresh", "invalidate_cache") if word in named}
