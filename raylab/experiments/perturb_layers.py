"""Train models alike, perturb one layer at a time, evaluate, measure (Section 4 of "Efficacy of data-free metrics").

For each model: the baseline; and for each layer and perturbation a trial that replaces the layer's weight and bias
together, evaluates from the cached activations just below the layer, and measures the spectrum of its new weight.
This module says which trials there are; `raylab.experiments.trained` works those of one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylab import spectral
from raylab.data import ClassificationData
from raylab.errors import UserError
from raylab.experiments.checkpoints import Checkpoints
from raylab.experiments.metrics import measured, metrics_of
from raylab.experiments.perturbations import by_model, groups_of_models, perturbations_of, trials_of_layers
from raylab.experiments.study import Study, common
from raylab.layers import LayerParameters, find_layers, parameters_of, select, split_by_size
from raylab.models.kernels import as_tensor
from raylab.registry import bind, call, own_code
from raylab.train import TRAIN_VERSION, relu_network
from raylab.types import (
    Group,
    Outcome,
    Perturbation,
    Recipe,
    Trial,
    TrialResult,
    digest,
    generator,
)

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {
    **{"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int},
    **{"accuracy": float, "loss": float, "num_samples": int, "train_seconds": float, "device": str},
}
EVALUATION_VERSION = "1"  # raised whenever the same weights would give another accuracy, loss or similarity
MODEL_METHODS = ("initial_state", "initial_law", "load")
SIMILARITY = ("activation_disagreement", "js_divergence", "linear_cka")


@dataclass(frozen=True, kw_only=True)
class PerturbLayers(Study):
    """The experiment, with every name resolved. Pickled once to each node."""

    models: int
    stack: int  # models that one worker trains together
    model_name: str
    model: Mapping[str, Any]  # its config: part of a checkpoint's identity
    make: Callable[..., Any]  # (inputs, outputs) -> a raylab.models.fcn.FCN or the like
    data: ClassificationData
    recipe: Recipe
    batch_size: int
    layers: tuple[LayerParameters, ...]
    skipped: Mapping[str, str]  # layer -> why it is left out
    perturbations: Mapping[str, Perturbation]
    draws: int
    similarity: bool
    model_code: Mapping[str, str]  # the part of it that the model is made of
    checkpoints: Checkpoints

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        return self._identity(data=self.data.revision, training=TRAIN_VERSION, evaluation=EVALUATION_VERSION)

    @property
    def columns(self) -> Mapping[str, type]:
        """Every value a row may carry."""
        similarity = dict.fromkeys(SIMILARITY, float) if self.similarity else {}
        return {**COLUMNS, **similarity, **spectral.columns(self.metrics, self.options)}

    def trials(self) -> list[Trial]:
        """The baseline of each model, then its layers in order, each with every perturbation."""
        return [trial for replicate in range(self.models) for trial in self._trials_of(replicate)]

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        """What is trained and what is only evaluated."""
        needed = {trial.checkpoint for trial in pending}
        kept = sum(checkpoint in self.checkpoints for checkpoint in needed)
        data, epochs = self.data, self.recipe.epochs
        return {
            "data": f"{data.name}, {len(data.train_y):,} training and {len(data.test_y):,} test samples",
            "models": f"{self.models} x {self.model_name}; {len(needed) - kept} to train, {epochs} epochs each",
        }

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """The trials of `stack` models each."""
        return groups_of_models(pending, self.stack)

    def run(self, group: Group) -> Iterator[Outcome]:
        """Train what has no checkpoint yet, then walk each model once from its first layer to its last."""
        from raylab.experiments import trained

        return trained.run(self, by_model(group))

    def measure(self, outcomes: Sequence[Outcome]) -> list[TrialResult]:
        """The spectra of perturbed weights; an outcome without weights is finished as it is."""
        return measured(outcomes, self.metrics, self.options)

    def _trials_of(self, replicate: int) -> Iterator[Trial]:
        whole = self._trial(
            model=self.model_name,
            replicate=replicate,
            checkpoint=self._checkpoint(replicate),
            data=self.data.revision,
        )
        yield whole
        names = [parameters.layer.name for parameters in self.layers]
        yield from trials_of_layers(whole, names, list(self.perturbations), self.draws)

    def _checkpoint(self, replicate: int) -> str:
        """Digest of all that determines the weights of a model."""
        code = dict(self.model_code)
        return digest(
            [
                TRAIN_VERSION,
                *([code] if code else []),
                self.model,
                asdict(self.recipe),
                self.data.revision,
                self.seed,
                replicate,
            ]
        )


def build(config: Config) -> PerturbLayers:
    """The experiment of a config. Raises UserError for any name, file or option that is not there."""
    metrics = metrics_of(config, {*COLUMNS, *SIMILARITY})
    perturbations = perturbations_of(config)
    make = bind({key: value for key, value in config.model.items() if key != "name"}, "model")
    load = bind(config.data, "data")
    data = call(load, config.data, "data")
    sample = call(make, config.model, "model", inputs=data.inputs, outputs=data.classes)
    require_relu_network(sample, data, config.model["_target_"])
    found, unsupported = find_layers(sample, config.spectral)
    layers, outside = split_by_size(select(found, config.layers), config.spectral)
    return PerturbLayers(
        **common(config, metrics, make, load, *perturbations.values()),
        models=config.models,
        stack=config.stack,
        model_name=str(config.model.get("name", config.model["_target_"])),
        model=config.model,
        make=make,
        data=data,
        recipe=config.train,
        batch_size=config.batch_size,
        layers=tuple(filter(None, parameters_of(sample, layers, config.spectral))),
        skipped={skipped.layer.name: skipped.reason for skipped in (*unsupported, *outside)},
        perturbations=perturbations,
        draws=config.draws,
        similarity=config.similarity,
        model_code=own_code(make),
        checkpoints=Checkpoints(Path(config.results).absolute() / "checkpoints"),
    )


def require_relu_network(model: Any, data: ClassificationData, target: str) -> None:
    """`train` is written out for ReLU networks of fully connected layers, and would train another model as one."""
    missing = [name for name in MODEL_METHODS if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"The model {target} has no {', '.join(missing)}: see raylab.models.fcn.FCN for what is needed."
        )
    state = model.initial_state(generator(0, "is it a ReLU network?"))
    x = data.test_x[:16]
    if not np.allclose(model.load(state)(as_tensor(x)).detach().numpy(), relu_network(state, x), atol=1e-4):
        raise UserError(
            f"The model {target} is not a ReLU network of fully connected layers, the only kind that this experiment "
            "trains: use raylab.models.fcn.FCN or a model that computes the same."
        )
