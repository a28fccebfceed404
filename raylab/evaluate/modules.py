"""Having every module of a model called as a module."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_switch, _before = threading.Lock(), list[bool]()


@contextmanager
def module_by_module() -> Iterator[None]:
    """Within the block torch's transformer layers call their modules.

    Where they carry no hooks they would run as one operation, which reads past whatever stands for a module. The switch
    is the process's: the last of several threads puts it back.
    """
    with _switch:
        _before.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        with _switch:
            before = _before.pop()
            if not _before:
                torch.backends.mha.set_fastpath_enabled(before)
