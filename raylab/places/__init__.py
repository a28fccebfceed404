"""Places where files of a study lie: a local folder, S3, or any URL that fsspec serves."""

from __future__ import annotations

import re
from pathlib import Path

from raylab.errors import UserError
from raylab.places import haste
from raylab.places.folder import Folder
from raylab.places.outage import GIVE_UP_SECONDS, Outage, patiently
from raylab.places.place import Lock, Place, UnreachableError, in_one_line

__all__ = [
    "GIVE_UP_SECONDS", "Folder", "Lock", "Outage", "Place", "UnreachableError", "at", "haste", "in_one_line", "is_url",
    "patiently",
]  # fmt: skip

SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
SECRET = re.compile(r"//[^/@]*:[^/@]*@|\?")


def is_url(where: object) -> bool:
    """Whether it names a scheme, as s3://bucket/prefix does."""
    return bool(SCHEME.match(str(where)))


def at(where: str | Path | Place) -> Place:
    """The place of a folder's path or a URL. Nothing is opened.

    Raises UserError for a URL with a password or a query, either of which would be kept in run.json, and for a scheme
    that nothing serves.
    """
    if not isinstance(where, str | Path):
        return where
    text, found = str(where), SCHEME.match(str(where))
    if found is None:
        return Folder(Path(where))
    if SECRET.search(text):
        raise UserError(
            f"A {found[0]} URL with a password or a '?' is not taken, as it would be written down with the results: "
            "give credentials in the environment (AWS_PROFILE, AWS_ENDPOINT_URL, ...) and the URL without them."
        )
    scheme = found[1].lower()
    if scheme in ("file", "local"):
        return Folder(Path(text[found.end() :]))
    if scheme in ("s3", "s3a"):
        from raylab.places.s3 import S3

        return S3(text.rstrip("/"))
    from raylab.places.other import Other

    return Other(text.rstrip("/"))
