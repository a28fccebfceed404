"""What an opened model is, whatever it came from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raylab.models.sources import digests


@dataclass(frozen=True, eq=False)
class Source:
    """The weights of a model, ready to be measured.

    Pickled by its arguments where it came from a path or a name: a worker opens the same again, on its own node.
    """

    name: str  # a short label: "gpt2", "resnet34.tv_in1k", the stem of a file, the name of a folder
    model: Any  # a torch module, or a mapping of names to tensors, what raylab.layers.find_layers takes
    origin: str  # where it came from, in words
    hashed: Callable[[], str]  # the digest, when it is asked for
    reopen: Callable[[], Source] | None = None  # None: the model itself is pickled

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the content of the weights, 24 hexadecimal characters. Reads all of them, once."""
        return self.hashed()

    def __reduce__(self) -> Any:
        known = self.__dict__.get("digest")
        if self.reopen is None:
            return _restored, (functools.partial(Source, self.name, self.model, self.origin, self.hashed), known)
        return _restored, (self.reopen, known)


def of_model(name: str, model: Any, origin: str) -> Source:
    """A torch module or a mapping that is in memory."""
    return Source(name, model, origin, functools.partial(_digest, model))


def _digest(model: Any) -> str:
    return digests.of_tensors(model.items() if isinstance(model, Mapping) else model.named_parameters())


def _restored(make: Callable[[], Source], digest: str | None) -> Source:
    source = make()
    if digest is not None:
        source.__dict__["digest"] = digest
    return source
