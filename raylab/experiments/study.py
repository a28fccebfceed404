"""What all kinds of experiment share: the metrics, the seed, someone's own code, and the identity of a trial."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylab import spectral
from raylab.experiments.metrics import measured
from raylab.registry import own_code
from raylab.types import ORIGINAL, Group, Measure, Metric, SpectralOptions, Trial, digest

if TYPE_CHECKING:
    from raylab.config import Config


@dataclass(frozen=True, kw_only=True)
class Study:
    """The part of an experiment that does not depend on its kind."""

    name: str
    seed: int
    metrics: tuple[Metric, ...]
    metrics_version: str
    options: SpectralOptions
    own_code: Mapping[str, str]  # module outside raylab -> digest of its source

    @property
    def measure(self) -> Measure:
        """The spectra of the weights that came with outcomes; one without weights is finished as it is."""
        return functools.partial(measured, metrics=self.metrics, options=self.options)

    def costs(self, groups: Sequence[Group]) -> Sequence[float]:
        """All alike: they are worked in their order."""
        return [0.0] * len(groups)

    def release(self) -> None:
        """Nothing is kept from one group to the next."""

    def _identity(self, **more: str) -> dict[str, str]:
        """What changes an answer and is in no config."""
        code = {f"code of {module}": version for module, version in self.own_code.items()}
        return {"metrics": self.metrics_version, **more, **code}

    def _trial(self, *, model: str, checkpoint: str, **more: Any) -> Trial:
        """A trial of a model, the baseline if `more` (fields of Trial) does not say otherwise."""
        plain = {"replicate": 0, "data": "", "layer": None, "perturbation": ORIGINAL, "draw": 0}
        return Trial(
            experiment=self.name,
            model=model,
            checkpoint=checkpoint,
            seed=self.seed,
            metrics=self.metrics_version,
            own_code=digest(dict(self.own_code)) if self.own_code else "",
            **{**plain, **more},
        )


def common(config: Config, metrics: Sequence[Metric], *code: Any) -> dict[str, Any]:
    """The fields of a Study. `code`: what else may be a user's own, and is part of a trial's identity."""
    return {
        "name": config.name,
        "seed": config.seed,
        "metrics": tuple(metrics),
        "metrics_version": spectral.version(config.metrics, config.spectral),
        "options": config.spectral,
        "own_code": own_code(*metrics, *code),
    }
