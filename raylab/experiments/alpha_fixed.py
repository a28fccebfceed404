"""Models trained with alpha fixed (Table 6 and Figure 14 of "Efficacy of data-free metrics").

Each model is made of measured draws, so that alpha of every layer lies in a range, and trained with the singular values
of its layers frozen, by each retraction (free training is one, for comparison). A row for each epoch, of the model as a
whole and of every layer. Epochs are an axis: more of them go on where a folder has ended.

The network of a row is W = U S V^T in float64 with float32 biases: that one is evaluated, in float64, and that one is
measured. `alpha_float32` is of the same layer as the last step left it: float32, S not restored.

This module says which trials there are; `raylab.experiments.fixed_epochs` works those of one model.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from raylab import spectral
from raylab.errors import UserError
from raylab.experiments import checkpoints
from raylab.experiments.checkpoints import Checkpoints
from raylab.experiments.from_pool import Choice, FromPool, models_from_pool
from raylab.experiments.metrics import metrics_of
from raylab.experiments.study import Study, common
from raylab.experiments.trainees import is_relu_network
from raylab.train import FIXED_VERSION, TRAIN_VERSION, OnceAnEpoch, Retraction, retraction_of
from raylab.types import PLAIN_SGD, Group, Outcome, Recipe, RetractionOptions, Trial, digest

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {
    **{"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int, "device": str},
    **{"epoch": int, "accuracy": float, "loss": float, "num_samples": int, "train_loss": float, "train_seconds": float},
    **{"alpha_range": str, "retraction": str, "biases": str, "pool_draw": int},
    **{"alpha_float32": float, "orthonormality": float},
}
EVALUATION_VERSION = "1"  # raised whenever the same weights would give another accuracy or loss


@dataclass(frozen=True, kw_only=True)
class FixedModel:
    """One model: what it is made of, and how it is trained."""

    choice: Choice
    retraction: str
    identity: str  # digest of all that determines its weights but the number of epochs

    def checkpoint(self, epoch: int) -> str:
        """Digest of all that determines its weights at the end of an epoch."""
        return digest([self.identity, epoch])


@dataclass(frozen=True, kw_only=True)
class AlphaFixed(Study):
    """The experiment, with every name resolved."""

    drawn: FromPool
    recipe: Recipe
    options_of_retraction: RetractionOptions
    retractions: Mapping[str, Retraction | OnceAnEpoch]
    skipped: Mapping[str, str]
    checkpoints: Checkpoints

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        training = f"{TRAIN_VERSION}.{FIXED_VERSION}"
        return self._identity(data=self.drawn.data.revision, training=training, evaluation=EVALUATION_VERSION)

    @property
    def columns(self) -> Mapping[str, type]:
        """Every value a row may carry."""
        return {**COLUMNS, **spectral.columns(self.metrics, self.options)}

    @functools.cached_property
    def models(self) -> tuple[FixedModel, ...]:
        """Replicate by replicate, so that a run that is broken off has as many of every range and retraction."""
        choices = sorted(self.drawn.choices, key=lambda choice: choice.replicate)
        return tuple(self._model(choice, name) for choice in choices for name in self.retractions)

    @functools.cached_property
    def places(self) -> dict[str, tuple[FixedModel, int]]:
        """Checkpoint -> the model, and its epoch."""
        return {model.checkpoint(e): (model, e) for model in self.models for e in range(self.recipe.epochs + 1)}

    def trials(self) -> list[Trial]:
        """Of each model its epochs, from 0 (untrained), and of each epoch the whole and every layer."""
        drawn = self.drawn
        wholes = [
            self._trial(
                model=drawn.model_name,
                replicate=model.choice.replicate,
                checkpoint=checkpoint,
                data=drawn.data.revision,
            )
            for checkpoint, (model, _) in self.places.items()
        ]
        return [replace(whole, layer=layer) for whole in wholes for layer in (None, *drawn.layers)]

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        """How many models of which range are trained how, and how many epochs that takes."""
        data, kept = self.drawn.data, self.checkpoints.kept()
        models: Counter[tuple[str, str]] = Counter()
        epochs: Counter[tuple[str, str]] = Counter()
        for group in self.groups(pending):
            found = [self.places[trial.checkpoint] for trial in group]
            model, last = found[0][0], max(epoch for _, epoch in found)
            kind = (model.choice.alpha_range, model.retraction)
            models[kind] += 1
            epochs[kind] += last - self.newest(model, min(epoch for _, epoch in found) - 1, kept)
        return {
            "data": f"{data.name}, {len(data.train_y):,} training and {len(data.test_y):,} test samples",
            **self.drawn.acceptance,
            **{
                f"alpha in {within}, {retraction}": f"{many:,} models, {epochs[within, retraction]:,} epochs to train"
                for (within, retraction), many in models.items()
            },
        }

    def newest(self, model: FixedModel, most: int, kept: Set[str]) -> int:
        """The last epoch up to `most` whose checkpoint is `kept`; 0: none, or none is needed."""
        return next((epoch for epoch in range(most, 0, -1) if model.checkpoint(epoch) in kept), 0)

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """One model each, with all its epochs."""
        groups: dict[str, list[Trial]] = {}
        for trial in pending:
            groups.setdefault(self.places[trial.checkpoint][0].identity, []).append(trial)
        return [tuple(trials) for trials in groups.values()]

    def costs(self, groups: Sequence[Group]) -> Sequence[float]:
        """The most epochs that are trained without a row: one, but where rows are missing and no checkpoint is near."""
        kept = self.checkpoints.kept()
        return [float(self._most_in_silence(group, kept)) for group in groups]

    def _most_in_silence(self, group: Group, kept: Set[str]) -> int:
        epochs = sorted({self.places[trial.checkpoint][1] for trial in group})
        model = self.places[group[0].checkpoint][0]
        return max(b - a for a, b in pairwise([self.newest(model, epochs[0] - 1, kept), *epochs]))

    def run(self, group: Group) -> Iterator[Outcome]:
        """Train epoch by epoch; as each one ends, the model as a whole and then its layers."""
        from raylab.experiments import fixed_epochs

        return fixed_epochs.run(self, group)

    def _model(self, choice: Choice, retraction: str) -> FixedModel:
        recipe = {key: value for key, value in self.recipe.given.items() if key != "epochs"}
        how = [TRAIN_VERSION, FIXED_VERSION, recipe, retraction, asdict(self.options_of_retraction)]
        code = [dict(self.own_code)] if self.own_code else []
        made_of = [self.drawn.checkpoint(choice), self.seed, self.drawn.data.revision]
        return FixedModel(choice=choice, retraction=retraction, identity=digest([*how, *code, *made_of]))


def build(config: Config) -> AlphaFixed:
    """The experiment of a config. Raises UserError for what is not there, and a pool with too few draws of a range."""
    if config.train.weight_decay:
        raise UserError(f"train.weight_decay={config.train.weight_decay:g} would decay what is fixed: leave it at 0.")
    if not config.train.is_plain:
        more = sorted(config.train.given.keys() - PLAIN_SGD)
        raise UserError(f"train.{more[0]} is not for training with alpha fixed, which is plain SGD: leave it out.")
    if not config.retractions:
        raise UserError("retractions=[] names none: give retractions=[newton_schulz].")
    metrics = metrics_of(config, COLUMNS)
    retractions = {name: retraction_of(name, config.retraction) for name in config.retractions}
    drawn = models_from_pool(config, ["drawn"])
    sample = drawn.make(inputs=drawn.data.inputs, outputs=drawn.data.classes)
    if not is_relu_network(sample, drawn.data):
        raise UserError(
            f"The model {config.model['_target_']} is not a ReLU network of fully connected layers, the only kind that "
            "is trained with alpha fixed: use raylab.models.fcn.FCN or a model that computes the same."
        )
    return AlphaFixed(
        **common(config, metrics, drawn.make, drawn.load, *retractions.values()),
        drawn=drawn,
        recipe=config.train,
        options_of_retraction=config.retraction,
        retractions=retractions,
        skipped=drawn.skipped,
        checkpoints=checkpoints.of(config.results),
    )
