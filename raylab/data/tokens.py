"""Texts as token ids, by any tokenizer of transformers; kept on disk, as long texts take long."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raylab.data import hub
from raylab.data.cache import Allocate, cached
from raylab.errors import UserError, first_line
from raylab.types import Array, digest

VERSION = 1  # raised whenever the same text and tokenizer would give other numbers


class Tokens(NamedTuple):
    """One text after another."""

    ids: NDArray[np.int32]  # (tokens,)
    lengths: tuple[int, ...]  # tokens of each text
    words: int  # of all texts, between white space
    digest: str  # of all of it


def tokenise(
    texts: Sequence[str],
    tokenizer: str,
    *,
    limit: int | None = None,
    cache: str | Path | None = None,
    download: bool = False,
) -> Tokens:
    """The token ids of some texts, each tokenised by itself, with the special tokens that its tokenizer adds.

    tokenizer: a folder, or a hub id. limit: the first so many tokens of all; their words are counted on the text that
    they decode to. Raises UserError where there are not so many, or no such tokenizer.
    """
    if limit is not None and limit < 1:
        raise UserError(f"data.tokens={limit} must be at least 1, or null for all.")
    folder = hub.tokenizer_folder(tokenizer, download)
    contents = [hashlib.blake2b(text.encode(), digest_size=12).hexdigest() for text in texts]
    versions = [importlib.metadata.version(library) for library in ("transformers", "tokenizers")]
    key = digest([VERSION, contents, _files(folder), versions, limit])
    packed = cached(cache, key, lambda allocate: _packed(texts, folder, limit, allocate))
    words, documents = (int(number) for number in packed.array[:2])
    start = 2 + documents
    return Tokens(packed.array[start:], tuple(packed.array[2:start].tolist()), words, packed.digest)


def _files(folder: Path) -> list[tuple[str, str]]:
    """Names and digests of a tokenizer's files."""
    patterns = (*hub.TOKENIZER_FILES, "config.json")
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return [(path.name, hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()) for path in paths]


def _packed(texts: Sequence[str], folder: Path, limit: int | None, allocate: Allocate) -> Array:
    """One array for the cache: the number of words, that of texts, the length of each, the ids."""
    reader = _reader(folder)
    ids: list[list[int]] = []
    words, left = 0, limit
    for text in texts:
        of_text = reader(text, verbose=False)["input_ids"]
        if left is not None and len(of_text) > left:
            of_text = of_text[:left]
            text = reader.decode(of_text, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ids.append(of_text)
        words += len(text.split())
        left = None if left is None else left - len(of_text)
        if left == 0:
            break
    lengths = [len(of_text) for of_text in ids]
    if left:
        raise UserError(
            f"data.tokens={limit} is more than the text's {sum(lengths)} tokens: give fewer, or null for all."
        )
    packed = allocate((2 + len(lengths) + sum(lengths),), np.int32)
    packed[: 2 + len(lengths)] = [words, len(lengths), *lengths]
    packed[2 + len(lengths) :] = [token for of_text in ids for token in of_text]
    return packed


def _reader(folder: Path) -> Any:
    transformers: Any = importlib.import_module("transformers")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust library beneath raises nothing more special
        raise UserError(
            f"{folder} holds no tokenizer that transformers can read ({first_line(error)}): "
            "give data.tokenizer=FOLDER, one with tokenizer.json or a vocabulary."
        ) from error
