"""Trained weights that are kept, so that a run that was killed does not train again, on this machine or another."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from raylab import places
from raylab.errors import UserError
from raylab.places import Place
from raylab.types import Array

ENDING = ".safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """A place of `<digest>.safetensors`. The digest names all that determines the weights: no file is ever stale."""

    place: Place

    def load(self, checkpoint: str) -> dict[str, Array] | None:
        """The tensors of a checkpoint by name, or None where it was never saved or cannot be read."""
        from safetensors import SafetensorError

        try:
            return places.patiently(lambda: self._load(checkpoint))
        except (OSError, SafetensorError):
            return None

    def save(self, checkpoint: str, tensors: Mapping[str, Array]) -> None:
        """Keep tensors: the file appears whole or not at all. Waits for a place that is out of reach: they are dear."""
        from safetensors.numpy import save

        content = save(dict(tensors))
        places.patiently(lambda: self.place.replace(_name(checkpoint), lambda file: file.write(content)))

    def _load(self, checkpoint: str) -> dict[str, Array]:
        from safetensors.numpy import load_file

        with self.place.local([_name(checkpoint)]) as (path,):
            return load_file(path)

    def remove(self, checkpoint: str) -> None:
        """Let go of a checkpoint, if there is one. Waits as `save` does; one that cannot be removed costs room only."""
        with contextlib.suppress(OSError, UserError):
            places.patiently(lambda: self.place.remove(_name(checkpoint)))

    def tidy(self) -> None:
        """Remove what writers that were killed have left, which may be gigabytes. For who holds the lock."""
        self.place.tidy()

    def kept(self) -> set[str]:
        """The checkpoints that are there; ask once for many. Waits as `save` does: else a model's rows fail."""
        names = places.patiently(self.place.names)
        return {name.removesuffix(ENDING) for name in names if name.endswith(ENDING)}


def of(results: str) -> Checkpoints:
    """Those of a results folder or URL, wherever a worker's working directory is."""
    return Checkpoints(places.at(results).absolute() / "checkpoints")


def _name(checkpoint: str) -> str:
    return f"{checkpoint}{ENDING}"
