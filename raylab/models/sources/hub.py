"""The local cache of the Hugging Face hub; the network only where it is asked for."""

from __future__ import annotations

import re
from pathlib import Path

from raylab.errors import UserError, first_line
from raylab.models.sources.libraries import not_at_hand

HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
CONFIGS = ["*.json"]
# What is fetched: safetensors, and pickles only where there are none. Nothing below, where other formats are kept.
FORMATS = (["*.safetensors"], ["pytorch_model*.bin", "adapter_model.bin"])


def is_hub_id(name: str) -> bool:
    """Whether a name can be one of the hub: "gpt2", "openai-community/gpt2"."""
    return HUB_ID.fullmatch(name) is not None


def snapshot(hub_id: str, download: bool) -> Path:
    """The folder of a repository of the hub in the local cache. Raises UserError where it is not there."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return _fetched(hub_id) if download else Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    except LocalEntryNotFoundError as error:
        if download:
            why = type(error.__cause__ or error).__name__
            raise UserError(f"No answer about '{hub_id}' ({why}): give a local file or folder instead.") from error
        raise UserError(f"There is no path '{hub_id}', and as a hub id {not_at_hand(hub_id)}") from error
    except (HFValidationError, OSError) as error:  # its HTTP errors are OSErrors: no such repository, not allowed
        raise UserError(f"The Hugging Face hub has no '{hub_id}' for us: {first_line(error)}") from error


def _fetched(hub_id: str) -> Path:
    import huggingface_hub

    folder = Path()
    for patterns in FORMATS:
        found = huggingface_hub.snapshot_download(hub_id, allow_patterns=[*CONFIGS, *patterns], ignore_patterns=["*/*"])
        folder = Path(found)
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            break
    return folder
