"""File systems behind fsspec whose files are streams: one as hdfs:// is, where the last wins, and one as sftp:// is."""

import threading
import time
from pathlib import Path

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


class Streams(LocalFileSystem):
    """As HDFS: who moves a file last wins."""

    protocol = "streams"

    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(path.removeprefix("streams://"))

    def mv(self, path1, path2, **kwargs):
        before_move(path2)
        super().mv(path1, path2, **kwargs)


def before_move(path):
    """For tests that hold a move back."""


class Ftp:
    """What is asked of paramiko's SFTPClient: by the protocol no `rename` onto a file."""

    def rename(self, old, new):
        try:
            Path(new).hardlink_to(old)
        except FileExistsError:
            raise OSError("Failure") from None
        Path(old).unlink()

    def posix_rename(self, old, new):
        Path(old).replace(new)


class Sftp(AbstractFileSystem):
    """With the signatures of fsspec's SFTPFileSystem: options that it does not know go to the connection, and fail."""

    protocol = "likesftp"

    def __init__(self, host="", **ssh_kwargs):
        super().__init__(**ssh_kwargs)
        self._connect(**ssh_kwargs)

    def _connect(self, username=None):
        self.ftp, self._one = Ftp(), threading.Lock()

    @classmethod
    def _strip_protocol(cls, path):
        return path.removeprefix("likesftp://me@host")

    def ls(self, path, detail=False):
        found = [self.info(str(each)) for each in Path(path).iterdir()]
        return found if detail else [each["name"] for each in found]

    def info(self, path):
        assert self._one.acquire(blocking=False), "two threads at once, whose answers paramiko would mix up"
        try:
            size = Path(path).stat().st_size
            time.sleep(0.001)
        finally:
            self._one.release()
        return {"name": path, "size": size, "type": "directory" if Path(path).is_dir() else "file"}

    def makedirs(self, path, exist_ok=False):
        Path(path).mkdir(parents=True, exist_ok=exist_ok)

    def _open(self, path, mode="rb", **_):
        return Path(path).open(mode)

    def _rm(self, path):
        Path(path).unlink()

    def mv(self, old, new):
        self.ftp.posix_rename(old, new)


fsspec.register_implementation("streams", Streams, clobber=True)
fsspec.register_implementation("likesftp", Sftp, clobber=True)
