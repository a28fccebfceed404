"""Which layers are perturbed how, and the trials that come of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raylab import perturb
from raylab.errors import UserError
from raylab.types import Group, Perturbation, Trial

if TYPE_CHECKING:
    from raylab.config import Config


def perturbations_of(config: Config) -> dict[str, Perturbation]:
    """The perturbations of a config by name. Raises UserError for what is none."""
    perturbations = {name: perturb.PERTURBATIONS.resolve(name) for name in config.perturbations}
    for name, perturbation in perturbations.items():
        if not callable(perturbation):
            raise UserError(f"The perturbation '{name}' is a {type(perturbation).__name__}, not a function.")
    return perturbations


def trials_of_layers(whole: Trial, layers: Sequence[str], perturbations: Sequence[str], draws: int) -> Iterator[Trial]:
    """Each layer with every perturbation, those that are random so many times. whole: the trial of the baseline."""
    for layer in layers:
        for name in perturbations:
            for draw in range(1 if name in perturb.DETERMINISTIC else draws):
                yield replace(whole, layer=layer, perturbation=name, draw=draw)


def by_model(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by the checkpoint of their model, both in the order given."""
    models: dict[str, list[Trial]] = {}
    for trial in trials:
        models.setdefault(trial.checkpoint, []).append(trial)
    return models


def groups_of_models(trials: Sequence[Trial], count: int) -> list[Group]:
    """The trials of `count` models each."""
    models = list(by_model(trials).values())
    several = [models[start : start + count] for start in range(0, len(models), count)]
    return [tuple(trial for trials in some for trial in trials) for some in several]
