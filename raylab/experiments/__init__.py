"""Which trials there are, and what one of them computes. One module a kind of experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylab.registry import Registry, load
from raylab.types import Experiment

if TYPE_CHECKING:
    from raylab.config import Config

# Kind -> "module:function" that builds it from a config; imported when used, because it brings torch along.
KINDS: Registry[str] = Registry("kind of experiment")
KINDS.register("alpha_fixed")("raylab.experiments.alpha_fixed:build")
KINDS.register("initial_layers")("raylab.experiments.initial_layers:build")
KINDS.register("initial_models")("raylab.experiments.initial_models:build")
KINDS.register("perturb_layers")("raylab.experiments.perturb_layers:build")
KINDS.register("perturb_pretrained")("raylab.experiments.perturb_pretrained:build")
KINDS.register("spectra")("raylab.experiments.spectra:build")


def build(config: Config) -> Experiment:
    """The experiment of a config. Every name in it is resolved here, on the driver, so that a typo costs seconds."""
    own = ":" in config.kind or "." in config.kind
    return load(config.kind if own else KINDS.resolve(config.kind), KINDS.kind)(config)
