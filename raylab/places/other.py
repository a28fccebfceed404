"""Any other URL, through fsspec; where the package that serves it is not installed, through pyarrow if that can.

Object stores (gs:// with gcsfs, az:// with adlfs, memory://) take a file in one go, and create it first-wins where
their protocol can. Where files are streams, as on hdfs:// and sftp://, a file gets a hidden name and is then moved.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raylab.errors import UserError, first_line
from raylab.places.place import UnreachableError
from raylab.places.remote import Remote


@dataclass(frozen=True)
class Other(Remote):
    """SCHEME://... . Errors are one line each, FileNotFoundError and FileExistsError apart."""

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
        system, path = self._system, self._path(name)
        with self._asking():
            if _takes_whole_files(system):
                system.pipe_file(path, data, mode="create" if new else "overwrite")
                return
            if new and system.exists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            hidden = self._path(f".{name}.{threading.get_native_id()}.tmp")
            system.makedirs(self._path("").rstrip("/"), exist_ok=True)
            system.pipe_file(hidden, data)
            if not new and system.exists(path):
                system.rm_file(path)
            system.mv(hidden, path)

    def _listed(self) -> tuple[list[str], list[str]]:
        with contextlib.suppress(FileNotFoundError), self._asking():
            here = self._system.ls(self._path("").rstrip("/"), detail=True, refresh=True)
            found = [(each["name"].rstrip("/").rpartition("/")[2], each["type"] == "directory") for each in here]
            return [name for name, is_folder in found if not is_folder], [name for name, is_ in found if is_]
        return [], []

    @property
    def _system(self) -> Any:
        return _system(self.url)

    def _path(self, name: str) -> str:
        return f"{self._system._strip_protocol(self.url).rstrip('/')}/{name}"

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """What the library has to say, as one line."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, UserError):
            raise
        except Exception as error:  # every library has exceptions of its own
            kind = UnreachableError if _is_of_the_way(error) else UserError
            raise kind(
                f"{self.url} cannot be used ({first_line(error)}): mend it and run the same command again; "
                "committed rows are kept."
            ) from error


def _is_of_the_way(error: Exception) -> bool:
    """Whether it is the network or the server that fails, as far as the exceptions of so many libraries tell."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    answers = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return any(isinstance(answer, int) and (answer >= 500 or answer in (408, 429)) for answer in answers)


def _takes_whole_files(system: Any) -> bool:
    """Whether a file system writes a file in one go: it then has a way of its own, not that of streams."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    kind = type(system)
    if isinstance(system, AsyncFileSystem):
        return kind._pipe_file is not AsyncFileSystem._pipe_file
    return kind.pipe_file is not AbstractFileSystem.pipe_file


@functools.cache
def _system(url: str) -> Any:
    import fsspec

    scheme = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        return _of_arrow(url, error)
    except ValueError as error:
        known = "give a folder, s3://, gs://, hdfs:// or az://."
        raise UserError(f"{scheme}:// is served by nothing here: {known}") from error
    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)[0]
    except Exception as error:  # every library has exceptions of its own
        raise UserError(f"{url} cannot be opened ({first_line(error)}).") from error


def _of_arrow(url: str, missing: ImportError) -> Any:
    import pyarrow as pa
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    try:
        system, _ = fs.FileSystem.from_uri(url)
    except (pa.ArrowException, OSError, ValueError):
        needs = str(missing).rstrip(".").replace("\n", " ")
        raise UserError(f"{url.partition('://')[0]}:// needs a package that is not installed: {needs}.") from missing
    return ArrowFSWrapper(system)
