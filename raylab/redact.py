"""Secrets out of whatever is written: rows, run.json, logs, error messages, what a terminal shows.

A secret is the value of an environment variable whose name says so (HF_TOKEN, AWS_SECRET_ACCESS_KEY, PGPASSWORD), the
value beside such a name in a text or a config, credentials in a URL, and what has the form of a well-known token. The
tokens of a tokenizer (eos_token, pad_token_id) are none.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

HIDDEN = "***"
SHORTEST = 6  # characters of a text, or of an environment variable's value, that can hold a secret or be one
# The last word of a name, or its last two, by which its value is a secret: hf_token, AWS_SECRET_ACCESS_KEY, apiKey; or
# its end, as in PGPASSWORD. "pass" alone is a word of English: DB_PASS.
_WORDS = ("token", "secret", "password", "passwd", "passphrase", "pwd", "credential", "credentials", "apikey")
_KEYS = ("api", "access", "private", "secret", "encryption", "signing", "account", "ssh", "auth", "service", "master")
_HUMP = r"(?-i:(?<=[a-z0-9])(?=[A-Z]))"
_BY_WORD = rf"(?:[\w.-]*(?:[\W_]|{_HUMP}))?(?:{'|'.join(_WORDS)}|(?:{'|'.join(_KEYS)})[-_. ]?key)(?:[-_]?id)?"
_NAME = rf"(?:{_BY_WORD}|[\w.-]*passw(?:or)?d|[\w.-]*(?:[_.-]|{_HUMP})pass)"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_IN_TEXT = (
    # scheme://user:password@host, and a user alone that may be a token, which that of ssh is not
    (re.compile(r"(\b(?!(?:sftp|ssh)://[^\s:/@'\"]+@)[a-z][a-z0-9+.-]{1,20}://)[^\s/@'\"]+@", re.IGNORECASE),
     rf"\1{HIDDEN}@"),
    # what signs a URL
    (re.compile(r"([?&](?:X-Amz-(?:Signature|Credential|Security-Token)|sig|signature|[\w-]*token|api[_-]?key)=)[^&\s'\"]+",
                re.IGNORECASE), rf"\1{HIDDEN}"),
    # the header, as it is sent, in a dictionary or a tuple
    (re.compile(r"\b(Authorization['\"]?\s*[:=,]\s*['\"]?(?:Bearer|Basic|Token)\s+)[\w.~+/=-]+", re.IGNORECASE),
     rf"\1{HIDDEN}"),
    # name=value, "name": "value", --name value
    (re.compile(rf"(?<![\w.-])((?:--)?({_NAME})['\"]?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&'\"()\[\]{{}}]+)",
                re.IGNORECASE), lambda found: _beside(*found.groups())),
    (re.compile(rf"(?<![\w.-])(--({_NAME})\s+)([^\s-]\S*)", re.IGNORECASE), lambda found: _beside(*found.groups())),
    # tokens of Hugging Face, AWS, GitHub, GitLab, Slack, OpenAI, W&B's and Google's keys; JSON web tokens; PEM
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
                r"|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|(?<!/)sk-(?=[\w-]*\d)[\w-]{20,}|AIza[\w-]{30,}"
                r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
)  # fmt: skip
# No pattern can match a text with none of these, in lower case: nearly every text of a row is done at once.
_SIGNS = ("://", "x-amz-", "sig", "authorization", *_WORDS, "pass", "key", "hf_", "akia", "asia", "gh", "glpat", "xox",
          "sk-", "aiza", "eyj")  # fmt: skip
# Names like those of secrets: what a tokenizer marks the end of a text with, in lower case; a pass over the data.
_HARMLESS = re.compile(
    r"(?:.*[._-])?(?:(?:bos|eos|pad|unk|sep|cls|mask)_token"
    r"|(?i:(?:forward|backward|first|second|last|one|two|single|multi|low|high|band)[_.-]?pass))"
)
_NUMBER = re.compile(r"-?\d+|null|None")


def text(of: str) -> str:
    """The same text with every secret that can be told replaced by ***."""
    return _hidden(of, _environment())


def texts(of: Mapping[str, Any]) -> dict[str, Any]:
    """The same mapping with its texts so, whatever their names: of the values of a row."""
    known = _values_of(int(time.monotonic()))
    return {name: _hidden(value, known) if isinstance(value, str) else value for name, value in of.items()}


def plain(of: Any, name: str = "") -> Any:
    """Nested dictionaries and lists, such as a config, without secrets: by the names of keys, and in their texts.

    name: the key that it is the value of.
    """
    if isinstance(of, Mapping):
        return {key: plain(value, str(key)) for key, value in of.items()}
    if isinstance(of, (list, tuple)):
        return [plain(value, name) for value in of]
    if of is None or isinstance(of, (bool, float)) or not _is_secret(name) or _is_harmless(name, str(of)):
        return text(of) if isinstance(of, str) else of
    return HIDDEN


def _hidden(of: str, known: tuple[str, ...]) -> str:
    if len(of) < SHORTEST:
        return of
    for value in known:
        of = of.replace(value, HIDDEN)
    lower = of.lower()
    if any(sign in lower for sign in _SIGNS):
        for pattern, instead in _IN_TEXT:
            of = pattern.sub(instead, of)
    return of


def _beside(before: str, name: str, value: str) -> str:
    """What is shown of a name and its value. before: the name, and what stands between the two."""
    return f"{before}{value if _is_harmless(name, value) else HIDDEN}"


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return name.lower() in ("key", "pass") or _SECRET_NAME.fullmatch(name) is not None


def _is_harmless(name: str, value: str) -> bool:
    """Whether a value is no secret, although its name looks like one."""
    a_number = name.lower().endswith("id") and _NUMBER.fullmatch(value.strip("'\"")) is not None
    return a_number or _HARMLESS.fullmatch(name) is not None


def _environment() -> tuple[str, ...]:
    """Values of environment variables that are secrets, the longest first, as one may hold another."""
    # PWD is no password, and the folder may be gone.
    return _values(tuple(os.environ[name] for name in list(os.environ) if _is_secret(name) and name != "PWD"))


@lru_cache(maxsize=1)
def _values_of(second: int) -> tuple[str, ...]:
    """Looked up once a second: there are thousands of rows in one."""
    return _environment()


@lru_cache(maxsize=8)
def _values(secrets: tuple[str, ...]) -> tuple[str, ...]:
    hidden = {value for value in secrets if len(value) >= SHORTEST and not _is_path(value)}
    return tuple(sorted(hidden, key=len, reverse=True))


def _is_path(value: str) -> bool:
    """Whether it is where a secret lies, and not the secret, which may begin with "/" as well."""
    try:
        return value.startswith("/") and Path(value).exists()
    except OSError:
        return False
