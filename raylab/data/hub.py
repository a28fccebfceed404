"""Data sets and tokenizers of the Hugging Face hub: from its local cache; the network only where it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from raylab.errors import UserError, first_line

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "*.model", "special_tokens_map.json", "added_tokens.json")


def image_folder(repository: str, split: str, download: bool) -> Path:
    """The folder of the hub's local cache with the parquet files of one split, data/SPLIT-*.parquet.

    Not through datasets.load_dataset, which fetches every split, ImageNet's 150 GB of training images among them.
    """
    return _snapshot(repository, "dataset", [f"data/{split}-*.parquet", f"plain_text/{split}-*.parquet"], download)


def tokenizer_folder(name: str, download: bool) -> Path:
    """The folder of a tokenizer: that of this path, else that of a hub id in the local cache."""
    place = Path(name).expanduser()
    if place.is_dir():
        return place
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"There is no tokenizer folder {place}: give data.tokenizer=FOLDER.")
    return _snapshot(name, "model", [*TOKENIZER_FILES, "config.json"], download)


def text_rows(repository: str, config: str, split: str, download: bool) -> list[str]:
    """The column "text" of a data set, as `datasets` has it prepared in its cache, or downloads it."""
    datasets: Any = importlib.import_module("datasets")
    advice = "Give data.root=FOLDER, one with parquet files (column text) or a .txt file"
    try:
        if download:
            return list(datasets.load_dataset(repository, config, split=split)["text"])
        return list(_prepared(repository, config).as_dataset(split=split)["text"])
    except (ValueError, OSError, KeyError, RuntimeError) as error:  # those of datasets are FileNotFoundErrors
        if download:
            raise UserError(f"{repository} could not be downloaded ({first_line(error)}). {advice}.") from error
        if "Unknown split" in str(error):
            raise UserError(f"{repository} has no split '{split}' ({first_line(error)}).") from error
        raise UserError(
            f"{repository} ({config}) is not in the local cache of datasets. {advice}, or data.download=true."
        ) from error


def _prepared(repository: str, config: str) -> Any:
    """What an earlier load_dataset left. The road that `datasets` takes offline, without first asking the network."""
    cache: Any = importlib.import_module("datasets.packaged_modules.cache.cache")
    name = repository.rpartition("/")[2]
    return cache.Cache(dataset_name=name, config_name=config, version="auto", hash="auto", repo_id=repository)


def _snapshot(repository: str, kind: str, patterns: list[str], download: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    give = "data.root=FOLDER" if kind == "dataset" else "data.tokenizer=FOLDER"
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, repo_type=kind, allow_patterns=patterns, local_files_only=not download
            )
        )
    except (HFValidationError, OSError) as error:  # its HTTP errors are OSErrors
        if download:
            raise UserError(f"{repository} could not be downloaded ({first_line(error)}). Give {give}.") from error
        folder = None
    if folder is None or not any(path for pattern in patterns for path in folder.glob(pattern)):
        more = ", or data.download=true" if not download else ""
        raise UserError(f"{repository} is not in the local cache of the Hugging Face hub: give {give}{more}.")
    return folder
