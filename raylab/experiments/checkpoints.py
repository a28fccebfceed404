"""Trained weights on disk, so that a run that was killed does not train again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raylab.types import Array


@dataclass(frozen=True)
class Checkpoints:
    """A folder of `<digest>.safetensors`. The digest names all that determines the weights: no file is ever stale."""

    folder: Path

    def load(self, checkpoint: str) -> dict[str, Array] | None:
        """The tensors of a checkpoint by name, or None where it was never saved or cannot be read."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self._path(checkpoint))
        except (OSError, SafetensorError):
            return None

    def save(self, checkpoint: str, tensors: Mapping[str, Array]) -> None:
        """Keep tensors: the file appears whole or not at all."""
        from safetensors.numpy import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{checkpoint}.{os.getpid()}.tmp"
        save_file(dict(tensors), temporary)
        temporary.replace(self._path(checkpoint))

    def remove(self, checkpoint: str) -> None:
        """Let go of a checkpoint, if there is one."""
        self._path(checkpoint).unlink(missing_ok=True)

    def __contains__(self, checkpoint: str) -> bool:
        return self._path(checkpoint).is_file()

    def _path(self, checkpoint: str) -> Path:
        return self.folder / f"{checkpoint}.safetensors"
