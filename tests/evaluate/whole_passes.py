"""The oracle of this folder: the model itself, run from its inputs every time."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from raylab.evaluate import Evaluation, PrefixWalk, score
from raylab.evaluate.score import NOTHING
from raylab.types import Budget


def logits_of(out) -> Tensor:
    if isinstance(out, Tensor):
        return out
    return out.logits if hasattr(out, "logits") else out[0]


def whole(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Evaluation:
    """An evaluation from the inputs, batch by batch."""
    result = NOTHING
    with torch.no_grad():
        for inputs, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            result += score(logits_of(model(inputs.clone())), labels)
    return result


def visible(model: nn.Module) -> nn.Module:
    """Vectors and zeros are made random: the last norm of a block that begins at zero hides the block."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.ndim < 2 or not parameter.any():
            parameter.data += torch.rand(parameter.shape, generator=generator) * 0.5 + 0.1
    return model.eval()


@contextmanager
def shaken(model: nn.Module, name: str) -> Iterator[None]:
    """A parameter with noise on it for a while."""
    parameter = model.get_parameter(name)
    old = parameter.data
    spread = float(old.std()) if old.numel() > 1 else 1.0
    noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(6)) * (spread + 0.05)
    parameter.data = old + noise.to(old)
    try:
        yield
    finally:
        parameter.data = old


def walked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch_size: int = 2,
    chosen: Callable[[str], bool] = lambda name: True,
    budget: Budget | None = None,
) -> PrefixWalk:
    """Walk a model, and at each cut compare with whole passes: the model as it is, and with one parameter shaken."""
    walk = PrefixWalk(model, x, y, batch_size, budget=budget)
    baseline = whole(model, x, y, batch_size)
    assert walk.evaluate() == baseline
    names = [name for name, p in model.named_parameters() if p.ndim > 1 and chosen(name)]
    for name in one_a_depth(walk, names):
        walk.advance_to([name])
        with shaken(model, name):
            expected = whole(model, x, y, batch_size)
            assert walk.evaluate() == expected, (name, walk._cut)
            assert expected != baseline, f"{name} has no influence: the comparison shows nothing"
        assert walk.evaluate() == baseline
    return walk


def one_a_depth(walk: PrefixWalk, names: Iterable[str]) -> list[str]:
    """Of the parameters at each depth the first."""
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(walk.depth([name]), name)
    return [first[depth] for depth in sorted(first)]


def depths(walk: PrefixWalk, names: Iterable[str]) -> list[str | None]:
    """The module whose output is the last cut below each parameter; None: the inputs."""
    found = [walk.depth([name]) for name in names]
    return [None if depth < 0 else walk.anatomy.cuts[depth].module for depth in found]


def crossing(walk: PrefixWalk, name: str) -> list[tuple[str, int]]:
    """What is handed in where this parameter is changed: modules and which tensor of their output."""
    depth = walk.depth([name])
    return [] if depth < 0 else list(walk.anatomy.cuts[depth].places)
