"""S3, and what speaks its protocol (AWS_ENDPOINT_URL): through boto3, whose writes can be conditional.

pyarrow's S3FileSystem writes over what is there whatever it is told, and s3fs needs a botocore of years ago beside a
boto3 of today. Credentials, profiles, regions and endpoints are found as boto3 finds them. What is throttled or fails
on the side of S3 is tried again with growing pauses (botocore's "standard" mode), up to five times or what
AWS_MAX_ATTEMPTS says, until ten seconds have passed; a silent S3 is waited for 15 seconds, and not tried again.
botocore has a quota of retries, which a few failing requests spend and of which each that goes well gives a little
back: in an outage, and for a while after, a failure is not tried again at all. Whoever must not fail asks again itself:
see raylab.places.outage.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raylab.errors import UserError, first_line
from raylab.places import haste, s3_client
from raylab.places.place import UnreachableError
from raylab.places.remote import Remote

CONFLICTS = 3  # tries to take a name that is neither free nor taken
MISSING = {"NoSuchKey", "404", "NotFound"}
TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
REFUSED = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
BUSY = {"429", "SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}


@dataclass(frozen=True)
class S3(Remote):
    """s3://bucket/prefix. Errors are one line each, FileNotFoundError and FileExistsError apart."""

    def read(self, name: str) -> bytes:
        """A whole object."""
        with self._asking(name):
            return self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()

    def remove(self, name: str) -> None:
        """Let go of an object, if there is one."""
        with self._asking(name):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def _put(self, name: str, data: bytes, new: bool) -> None:
        condition = {"IfNoneMatch": "*"} if new else {}
        for again in range(CONFLICTS):
            try:
                with self._asking(name):
                    self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data, **condition)
                return
            except FileExistsError:
                # S3 may have taken it and the answer got lost: asked again, it says that the name is taken. And it
                # says so of a name that another was about to take, or to give up, and in the end did not take.
                with contextlib.suppress(FileNotFoundError):
                    if self.read(name) == data:
                        return
                    raise
                if again + 1 == CONFLICTS:
                    raise

    def _listed(self) -> tuple[list[str], list[str]]:
        prefix, files, folders = self._key(""), list[str](), list[str]()
        with self._asking(""):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                files += [each["Key"][len(prefix) :] for each in page.get("Contents", ())]
                folders += [each["Prefix"][len(prefix) : -1] for each in page.get("CommonPrefixes", ())]
        return [name for name in files if name], folders

    @property
    def _client(self) -> Any:
        return s3_client.client()

    @property
    def _bucket(self) -> str:
        return self.url.split("/")[2]

    def _key(self, name: str) -> str:
        return "/".join([*self.url.split("/")[3:], name])

    @contextlib.contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """What S3, or the way to it, has to say, as one line."""
        with haste.asking(self.url):
            s3_client.client()  # says what to install, before what it brings is imported
            from botocore.exceptions import BotoCoreError, ClientError

            try:
                yield
            except ClientError as error:
                raise self._explained(name, error) from error
            except (BotoCoreError, OSError) as error:
                raise _without_answer(self.url, error) from error

    def _explained(self, name: str, error: Any) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in MISSING:
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.file(name))
        if code in TAKEN:
            return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.file(name))
        if code == "NoSuchBucket":
            make = f"aws s3 mb s3://{self._bucket}"
            return UserError(f"There is no bucket {self._bucket}: correct its name, or make it (`{make}`).")
        if code in REFUSED:
            return UserError(f"S3 refuses {self.url} ({code}): check the credentials, and what they may do there.")
        if code in EXPIRED:
            return UserError(f"The credentials for {self.url} have expired ({code}): renew them, {AGAIN}")
        if code == "RequestTimeTooSkewed":
            return UserError(f"S3 refuses {self.url}, as this machine's clock is wrong: set it (NTP), {AGAIN}")
        busy = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500 or code in BUSY
        return _not_reached(UnreachableError if busy else UserError, self.url, error)


AGAIN = "and run the same command again: committed rows are kept."


def _without_answer(url: str, error: Exception) -> UserError:
    from botocore import exceptions as said

    if isinstance(error, said.NoCredentialsError | said.PartialCredentialsError | said.ProfileNotFound):
        return UserError(
            f"There are no credentials for {url}: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or work on a machine whose role may write there."
        )
    cut_off = isinstance(error, said.ConnectionError | said.HTTPClientError | said.IncompleteReadError | OSError)
    return _not_reached(UnreachableError if cut_off else UserError, url, error)


def _not_reached(kind: type[UserError], url: str, error: Exception) -> UserError:
    advice = f"see whether AWS_ENDPOINT_URL is right, or wait until S3 answers, {AGAIN}"
    return kind(f"{url} cannot be reached ({first_line(error)}): {advice}")
