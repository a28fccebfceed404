"""WikiText (Merity et al. 2016), or any other text: from parquet files, a text file, or the cache of `datasets`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylab.data import hub, parquet, text
from raylab.data.evaluation import EvaluationData
from raylab.errors import UserError, first_line

REPOSITORY = "Salesforce/wikitext"
JOININGS = ("blank_lines", "raw", "documents")
HEADING = re.compile(r" ?= [^=].* = ?\n?")  # " = Title = "; sections are " = = Title = = "
ADVICE = "Give data.root=FOLDER, one with SPLIT-*.parquet (column text), such a file or a .txt file."


def load(
    network: Any = None,
    root: str | Path | None = None,
    *,
    name: str | None = None,
    config: str = "wikitext-103-v1",
    split: str = "test",
    tokenizer: str | Path | None = None,
    context: int = 1024,
    stride: int | None = None,
    joining: str = "blank_lines",
    normaliser: str = "token",
    tokens: int | None = None,
    cache: str | Path | None = None,
    download: bool = False,
) -> EvaluationData:
    """A split of WikiText as windows of token ids; see raylab.data.text.evaluation for what is scored.

    root: a folder with parquet files of the split, itself or in its sub-folder `config`; a parquet file; a text file.
    None: what `datasets` has in its cache, where `download` puts it. tokenizer: a folder or hub id in the place of
    `network.tokenizer`. joining: how rows become text, see `joined`. Raises UserError for what is not there.
    """
    text.check(context, stride, normaliser, network)
    wanted = text.tokenizer_of(network, tokenizer)
    texts = joined(rows(root, config=config, split=split, download=download), joining)
    return text.evaluation(
        texts,
        name=name or f"{re.sub('-v[0-9]+$', '', config)} {split}",
        tokenizer=wanted,
        joining=joining,
        context=context,
        stride=stride,
        normaliser=normaliser,
        tokens=tokens,
        cache=cache,
        download=download or bool(getattr(network, "download", False)),
    )


def rows(root: str | Path | None, *, config: str, split: str, download: bool = False) -> list[str]:
    """The rows of a split as they are stored. Raises UserError where it is not there."""
    if root is None:
        return hub.text_rows(REPOSITORY, config, split, download)
    place = Path(root).expanduser()
    if place.suffix == ".txt" and place.is_file():
        return _lines(place)
    return [row for path in _parquet_files(place, config, split) for row in _column(path)]


def joined(rows: Sequence[str], joining: str) -> list[str]:
    """Rows as texts, each of which is tokenised by itself.

    "blank_lines": one text, the rows with a blank line between them, as in the Hugging Face guide (blank rows count as
    empty ones). "raw": one text, the rows as they lie. "documents": the articles of WikiText, each a text. Raises
    UserError for another joining, and where there is no text.
    """
    if joining not in JOININGS:
        raise UserError(f"data.joining={joining} is not known. Available: {', '.join(JOININGS)}.")
    if not any(row.strip() for row in rows):
        raise UserError(f"The text is empty. {ADVICE}")
    if joining == "blank_lines":
        return ["\n\n".join(row if row.strip() else "" for row in rows)]
    return ["".join(rows)] if joining == "raw" else _articles(rows)


def _articles(rows: Sequence[str]) -> list[str]:
    """A title stands between blank rows, which formulae that look like one do not."""
    blank = [True, *(not row.strip() for row in rows), True]
    starts = [place for place, row in enumerate(rows) if HEADING.fullmatch(row) and blank[place] and blank[place + 2]]
    if not starts:
        raise UserError("The text has no titles as WikiText's (' = Title = '): give data.joining=raw or blank_lines.")
    ends = [*starts[1:], len(rows)]
    articles = ["".join(rows[start:end]) for start, end in zip([0, *starts[1:]], ends, strict=True)]
    return [article for article in articles if article.strip()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({first_line(error)}). {ADVICE}") from error


def _parquet_files(place: Path, config: str, split: str) -> list[Path]:
    if place.suffix == ".parquet" and place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"There is no folder or file of text {place}. {ADVICE}")
    for folder in (place, place / config):
        if files := parquet.of_split(folder, [split]):
            return files
    there = sorted(
        {path.name.split("-")[0] for folder in (place, place / config) for path in folder.glob("*-*.parquet")}
    )
    known = f"give data.split={' or '.join(there)}, which it has." if there else ADVICE
    raise UserError(f"{place} has no parquet file of the split '{split}': {known[0].lower()}{known[1:]}")


def _column(path: Path) -> list[str]:
    return [row or "" for row in parquet.column(path, "text", ADVICE).to_pylist()]
