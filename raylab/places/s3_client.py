"""The client of S3: how long it waits for an answer, and for how long it asks again."""

from __future__ import annotations

import functools
import os
import time
from typing import Any, NamedTuple

from raylab.errors import UserError, first_line
from raylab.places import haste
from raylab.places.remote import AT_ONCE

ATTEMPTS = 5
INSTALL = "s3:// needs boto3: `uv sync --extra s3`, or `pip install boto3`."
_BEGAN = "raylab_began"  # in the context of a request: when it was first sent


class Limits(NamedTuple):
    """Seconds."""

    connect: int
    read: int  # without a byte
    again: float  # after which a request that has failed is not tried again


USUAL, HURRIED = Limits(5, 15, 10.0), Limits(3, 8, 2.0)


def client() -> Any:
    """That of this process; it may be used by several threads. After an interrupt it is another, of less patience."""
    return _client(os.getpid(), HURRIED if haste.is_on() else USUAL)


def forget() -> None:
    """Look again for credentials, profile and endpoint."""
    _client.cache_clear()
    _session.cache_clear()


@functools.cache
def _client(process: int, limits: Limits) -> Any:
    session = _session(process)
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
    retries: Any = {"mode": "standard", "total_max_attempts": attempts}
    waits = {"connect_timeout": limits.connect, "read_timeout": limits.read}
    try:
        made = session.client("s3", config=Config(retries=retries, max_pool_connections=AT_ONCE, **waits))
    except (BotoCoreError, ValueError) as error:  # an endpoint that is none
        raise _no_way(error) from error
    made.meta.events.register("before-call.s3", _begin)
    made.meta.events.register_first("needs-retry.s3", functools.partial(_give_up, limits.again))
    return made


@functools.cache
def _session(process: int) -> Any:
    """Shared by the clients of a process: credentials are found once, which may take requests of its own."""
    try:
        import boto3
    except ImportError as error:
        raise UserError(INSTALL) from error
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.Session()
    except BotoCoreError as error:  # a profile that is not there
        raise _no_way(error) from error


def _no_way(error: Exception) -> UserError:
    return UserError(f"No way to S3 ({first_line(error)}): correct AWS_PROFILE or AWS_ENDPOINT_URL.")


def _begin(params: dict[str, Any], **_: Any) -> None:
    params["context"][_BEGAN] = time.monotonic()


def _give_up(
    seconds: float, request_dict: dict[str, Any], response: Any, caught_exception: Any, operation: Any, **_: Any
) -> None:
    """Say now what botocore would say after its last attempt, where there is no time for another."""
    limit = min(seconds, HURRIED.again) if haste.is_on() else seconds
    if time.monotonic() - request_dict["context"][_BEGAN] < limit:
        return
    if caught_exception is not None:
        raise caught_exception
    if response is not None and response[0].status_code >= 500:
        from botocore.exceptions import ClientError

        raise ClientError(response[1], operation.name)
