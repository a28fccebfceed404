"""Models whose every layer has, untrained, an alpha within a range (Tables 4 and 5 of "Efficacy of data-free metrics").

Which draws they are made of, `raylab.experiments.from_pool` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from raylab import spectral
from raylab.evaluate import Evaluation, PrefixWalk
from raylab.experiments.attempt import attempt
from raylab.experiments.from_pool import Choice, FromPool, models_from_pool
from raylab.experiments.metrics import metrics_of
from raylab.experiments.perturbations import groups_of_models
from raylab.experiments.study import Study, common
from raylab.layers import size_columns
from raylab.models.kernels import take_the_fast_road
from raylab.types import Array, Group, Outcome, Trial, TrialResult, Value

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {
    **{"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int, "device": str},
    **{"accuracy": float, "loss": float, "num_samples": int, "alpha_range": str, "biases": str, "pool_draw": int},
}
EVALUATION_VERSION = "1"  # raised whenever the same draws would give another accuracy
MODELS_A_GROUP = 5


@dataclass(frozen=True, kw_only=True)
class InitialModels(Study):
    """The experiment, with every name resolved."""

    drawn: FromPool
    batch_size: int
    choices: Mapping[str, Choice]  # by the digest of what the model is made of
    skipped: Mapping[str, str]

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        return self._identity(data=self.drawn.data.revision, evaluation=EVALUATION_VERSION)

    @property
    def columns(self) -> Mapping[str, type]:
        """Every value a row may carry."""
        return {**COLUMNS, **spectral.columns(self.metrics, self.options)}

    def trials(self) -> list[Trial]:
        """Each model, and each of its layers."""
        return [
            self._trial(
                model=self.drawn.model_name,
                replicate=choice.replicate,
                checkpoint=checkpoint,
                data=self.drawn.data.revision,
                layer=layer,
            )
            for checkpoint, choice in self.choices.items()
            for layer in (None, *self.drawn.layers)
        ]

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        """How many models of which range."""
        left = [self.choices[name] for name in {trial.checkpoint for trial in pending}]
        kinds = sorted(Counter((choice.alpha_range, choice.biases) for choice in left).items())
        models = {f"alpha in {within}, biases {biases}": f"{many:,} models" for (within, biases), many in kinds}
        data = {"data": f"{self.drawn.data.name}, {len(self.drawn.data.test_y):,} test samples"}
        return {**data, **self.drawn.acceptance, **models}

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """A few models each."""
        return groups_of_models(pending, MODELS_A_GROUP)

    def run(self, group: Group) -> Iterator[Outcome]:
        """Make each model, evaluate it once, and give its layers to be measured."""
        torch.set_num_threads(1)
        checkpoint, state, evaluation = "", dict[str, Array](), None
        for trial in group:
            if trial.checkpoint != checkpoint:
                checkpoint, state, evaluation = trial.checkpoint, self.drawn.state(self.choices[trial.checkpoint]), None
            if evaluation is None:
                evaluation = self._evaluation(state)
            yield attempt(trial, lambda t=trial, s=state, e=evaluation: self._outcome(t, s, e))

    def _evaluation(self, state: Mapping[str, Array]) -> Evaluation:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = self.drawn.make(inputs=self.drawn.data.inputs, outputs=self.drawn.data.classes).load(state).to(device)
        if device == "cpu":
            take_the_fast_road(model)
        return PrefixWalk(model, self.drawn.data.test_x, self.drawn.data.test_y, self.batch_size).evaluate()

    def _outcome(self, trial: Trial, state: Mapping[str, Array], evaluation: Evaluation) -> Outcome:
        choice = self.choices[trial.checkpoint]
        values: dict[str, Value] = {
            "accuracy": evaluation.accuracy,
            "loss": evaluation.loss,
            "num_samples": evaluation.num_samples,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "alpha_range": choice.alpha_range,
            "biases": choice.biases,
        }
        if trial.layer is None:
            return Outcome(TrialResult(trial, "ok", values))
        layer = self.drawn.layers[trial.layer]
        values |= {"layer_index": layer.index, "kind": layer.kind, "pool_draw": choice.draws[trial.layer]}
        values |= size_columns(layer, self.options.conv, self.options.groups)
        return Outcome(TrialResult(trial, "ok", values), layer, state[f"{trial.layer}.weight"])


def build(config: Config) -> InitialModels:
    """The experiment of a config. Raises UserError for what is not there, and a pool with too few draws of a range."""
    metrics = metrics_of(config, COLUMNS)
    drawn = models_from_pool(config)
    return InitialModels(
        **common(config, metrics, drawn.make, drawn.load),
        drawn=drawn,
        batch_size=config.batch_size,
        choices={drawn.checkpoint(choice): choice for choice in drawn.choices},
        skipped=drawn.skipped,
    )
