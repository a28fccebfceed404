"""Several changes of one layer evaluated in a single pass: the samples once for each, and in the layer each its own.

It pays where a batch alone leaves the machine idle: ten draws over 32 tokens are 2.6 times as fast together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from raylab.evaluate.replay import replaced_forward
from raylab.perturb import perturbed
from raylab.types import Array


@contextmanager
def stacked(model: nn.Module, variants: Sequence[Mapping[str, Array]], samples: int) -> Iterator[None]:
    """Within the block a batch of `len(variants)` times `samples` rows meets each variant with its own rows.

    Right for parameters that are read only while a module runs that owns them (`Anatomy.contained`).
    """
    shared = {id(model.get_parameter(name)) for name in variants[0]}
    owners = [module for module in model.modules() if any(id(p) in shared for p in module._parameters.values())]
    with ExitStack() as stack:
        for owner in owners:
            stack.enter_context(replaced_forward(owner, _each(model, owner.forward, variants, samples)))
        yield


def _each(
    model: nn.Module, forward: Callable[..., Any], variants: Sequence[Mapping[str, Array]], samples: int
) -> Callable[..., Any]:
    """The forward of a module over the rows of each variant in turn, with the variant's parameters."""
    whole = len(variants) * samples

    def split(args: Any, rows: slice) -> Any:
        cut = lambda x: x[rows] if isinstance(x, Tensor) and x.dim() and len(x) == whole else x  # noqa: E731
        return tree_map(cut, args)

    def run(*args: Any, **kwargs: Any) -> Any:
        outputs = []
        for k, arrays in enumerate(variants):
            rows = slice(k * samples, (k + 1) * samples)
            with perturbed(model, arrays):
                outputs.append(forward(*split(args, rows), **split(kwargs, rows)))
        return tree_map(lambda *parts: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0], *outputs)

    return run
