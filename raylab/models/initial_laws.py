"""The law that each parameter of a model was initialised with, found by watching its library build it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylab.errors import UserError
from raylab.models.randomness import one_at_a_time, private_randomness
from raylab.models.recording.entry_laws import Float32, Law, Uninitialised, fixed
from raylab.models.sources.digests import of_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from raylab.models.recording.recorder import Recorder

Build = Callable[[], "nn.Module"]
SEEDS = (0, 1)  # of the two recordings


@dataclass(frozen=True)
class Built(Law):
    """No simple law (orthogonal matrices, computed time constants): a draw builds the whole model anew. Slow but right.

    Picklable where `build` is.
    """

    build: Build
    parameter: str  # its name in the model

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
        """That parameter of a new model, with the global generators seeded from `rng` meanwhile."""
        with _undisturbed(int(rng.integers(2**63))):
            drawn = self.build().get_parameter(self.parameter)
        return drawn.detach().float().cpu().numpy().reshape(shape).copy()

    def __str__(self) -> str:
        return "built anew"


def laws_of(build: Build) -> dict[str, Law]:
    """Parameter name -> the law that it is initialised with, of the model that `build` makes (with random weights).

    The model is built twice, without its random numbers: the time of its Python objects, little memory. What differs
    between the two, by randomness that torch does not see, has no simple law; if there is such a parameter the model is
    built twice in earnest, and what is the same both times, as of a model that seeds itself, has no law: it is left
    out. Tied parameters have the same law under each of their names; global generators and defaults are afterwards as
    they were. Raises UserError where `build` makes no module, or one that is not on the CPU.
    """
    first, second = (_recorded(build, seed) for seed in SEEDS)
    plain = {name: law for name, law in first.items() if law is not None and law == second.get(name)}
    repeated = _repeated(build, first.keys() - plain.keys())
    return {name: plain.get(name) or Built(build, name) for name in first if name not in repeated}


def _repeated(build: Build, names: Collection[str]) -> set[str]:
    """The parameters which are no constants and yet the same whatever the seed: no draw of them would be fresh."""
    if not names:
        return set()
    first, second = (_contents(build, names, seed) for seed in SEEDS)
    return {name for name, content in first.items() if content is not None and content == second.get(name)}


def _contents(build: Build, names: Collection[str], seed: int) -> dict[str, str | None]:
    """Digests of some parameters of a model that is built; None of a constant."""
    with _undisturbed(seed):
        model = build()
    arrays = {name: model.get_parameter(name).detach().float().cpu().numpy() for name in names}
    return {
        name: None if np.all(array == array.flat[:1]) else of_tensors([(name, array)]) for name, array in arrays.items()
    }


def _recorded(build: Build, seed: int) -> dict[str, Law | None]:
    from raylab.models.recording.recorder import recording

    with _undisturbed(seed):
        with recording(seed) as recorder:
            model = build()
        return dict(_laws(model, recorder))


def _laws(model: nn.Module, recorder: Recorder) -> Iterator[tuple[str, Law | None]]:
    from torch import nn

    if not isinstance(model, nn.Module):
        raise UserError(
            f"Laws are those of a torch module's parameters, not of a {type(model).__name__}: build a module."
        )
    found: dict[int, Law | None] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in found:
            found[id(parameter)] = _law(name, parameter, recorder)
        yield name, found[id(parameter)]


def _law(name: str, parameter: Tensor, recorder: Recorder) -> Law | None:
    """None where there is none that is simple."""
    from torch.nn.parameter import is_lazy

    from raylab.models.recording.memory import law_of
    from raylab.models.recording.recorder import region_of

    if is_lazy(parameter):
        return Uninitialised()
    if parameter.device.type != "cpu":
        raise UserError(f"The parameter {name} is on {parameter.device}: build the model on the CPU to find its laws.")
    memory = recorder.memory(parameter)
    if memory.patches is not None:
        return law_of(memory.patches, region_of(parameter))
    return None if memory.random else fixed(parameter.detach().float().numpy().copy())


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Nobody else builds meanwhile, and what belongs to the process is afterwards as it was."""
    import torch

    with one_at_a_time, private_randomness(seed):
        dtype = torch.get_default_dtype()
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
