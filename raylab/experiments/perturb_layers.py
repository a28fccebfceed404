"""Train models alike, perturb one layer at a time, evaluate, measure (Section 4 of "Efficacy of data-free metrics").

For each model: the baseline; and for each layer and perturbation a trial that replaces the layer's weight and bias
together, evaluates from the cached activations just below the layer, and measures the spectrum of its new weight.
This module says which trials there are; `raylab.experiments.trained` works those of one model. Buffers, such as batch
norm's running statistics, belong to the trained model: they are trained with it, and no perturbation touches them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylab import spectral
from raylab.data import ClassificationData
from raylab.errors import UserError
from raylab.experiments import checkpoints
from raylab.experiments.checkpoints import Checkpoints
from raylab.experiments.metrics import metrics_of
from raylab.experiments.perturbations import by_model, groups_of_models, perturbations_of, trials_of_layers
from raylab.experiments.study import Study, common
from raylab.experiments.trainees import Trainee, trainee
from raylab.layers import LayerParameters, find_layers, parameters_of, select, split_by_size
from raylab.registry import bind, call, own_code
from raylab.types import Group, Outcome, Perturbation, Recipe, Trial, digest, generator

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {
    **{"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int},
    **{"accuracy": float, "loss": float, "num_samples": int, "train_seconds": float, "device": str},
    **{"depth": int, "width": int, "law": str, "bias": str, "buffers": str},
}
EVALUATION_VERSION = "1"  # raised whenever the same weights would give another accuracy, loss or similarity
NOT_TO_TRAIN_ON = (
    "is not data to train on, with a training and a test set: choose data=digits, data=mnist or data=cifar10_training, "
    "or give a raylab.data.ClassificationData"
)
COMPUTED = "computed from other parameters: it cannot be given other weights by itself"
# Evaluations of a model: what is trained goes first, and what is evaluated in seconds does not say how long that takes.
MORE_THAN_ALL = 1e9
SIMILARITY = ("activation_disagreement", "js_divergence", "linear_cka")


@dataclass(frozen=True, kw_only=True)
class PerturbLayers(Study):
    """The experiment, with every name resolved. Pickled once to each node."""

    models: int
    stack: int  # models that one worker trains together
    model_name: str
    model: Mapping[str, Any]  # its config: part of a checkpoint's identity
    trainee: Trainee
    data: ClassificationData
    recipe: Recipe
    batch_size: int
    layers: tuple[LayerParameters, ...]
    skipped: Mapping[str, str]  # layer -> why it is left out
    depth: int  # what the model's config says, else its layers
    width: int  # what the model's config says, else the features that its last layer sees
    perturbations: Mapping[str, Perturbation]
    draws: int
    similarity: bool
    model_code: Mapping[str, str]  # the part of it that the model is made of
    checkpoints: Checkpoints

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        return self._identity(data=self.data.revision, training=self.trainee.version, evaluation=EVALUATION_VERSION)

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
        kept = len(needed & self.checkpoints.kept())
        data, epochs = self.data, self.recipe.epochs
        return {
            "data": f"{data.name}, {len(data.train_y):,} training and {len(data.test_y):,} test samples",
            "models": f"{self.models} x {self.model_name}; {len(needed) - kept} to train, {epochs} epochs each",
        }

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """The trials of `stack` models each."""
        return groups_of_models(pending, self.stack)

    def costs(self, groups: Sequence[Group]) -> Sequence[float]:
        """Evaluations. Training costs more than all of them: models without a checkpoint go first."""
        kept = self.checkpoints.kept()
        return [len(group) + MORE_THAN_ALL * len(by_model(group).keys() - kept) for group in groups]

    def run(self, group: Group) -> Iterator[Outcome]:
        """Train what has no checkpoint yet, then walk each model once from its first layer to its last."""
        from raylab.experiments import trained

        return trained.run(self, by_model(group))

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
                self.trainee.version,
                *([code] if code else []),
                *self.trainee.identity,
                self.model,
                self.recipe.given,
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
    if not isinstance(data, ClassificationData):
        raise UserError(f"data '{config.data['_target_']}' {NOT_TO_TRAIN_ON}.")
    made = trainee(make, config.model, data, config.train)
    sample = made.module(made.initial(generator(0, "which layers has it?")))
    found, unsupported = find_layers(sample, config.spectral)
    layers, outside = split_by_size(select(found, config.layers), config.spectral)
    skipped = {item.layer.name: item.reason for item in (*unsupported, *outside)}
    parameters = dict(zip(layers, parameters_of(sample, layers, config.spectral), strict=True))
    skipped |= {layer.name: COMPUTED for layer, its_own in parameters.items() if its_own is None}
    return PerturbLayers(
        **common(config, metrics, make, load, *perturbations.values()),
        models=config.models,
        stack=config.stack,
        model_name=str(config.model.get("name", config.model["_target_"])),
        model=config.model,
        trainee=made,
        data=data,
        recipe=config.train,
        batch_size=config.batch_size,
        layers=tuple(filter(None, parameters.values())),
        skipped=skipped,
        depth=_said(config.model, "depth", len(found)),
        width=_said(config.model, "width", found[-1].shape[1]),
        perturbations=perturbations,
        draws=config.draws,
        similarity=config.similarity,
        model_code=own_code(make),
        checkpoints=checkpoints.of(config.results),
    )


def _said(model: Mapping[str, Any], key: str, otherwise: int) -> int:
    """Depth or width of an architecture as its config has it, to tell those of a family apart."""
    return model[key] if isinstance(model.get(key), int) else otherwise
