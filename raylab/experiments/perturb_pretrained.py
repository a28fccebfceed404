"""Perturb any layer of a given model, evaluate, measure (Section 5 of "Efficacy of data-free metrics").

For one pretrained model: the baseline; for each layer a trial that leaves it as it is (for its spectra), and so many
that give it fresh weights from the law it was initialised with. Each is evaluated from the activations just below the
layer. This module says which trials there are; `raylab.experiments.pretrained` works them on a worker.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from raylab import perturb, spectral
from raylab.data.evaluation import EvaluationData
from raylab.errors import UserError
from raylab.experiments.given_data import data_of, described
from raylab.experiments.metrics import metrics_of
from raylab.experiments.perturbations import perturbations_of, trials_of_layers
from raylab.experiments.study import Study, common
from raylab.layers import LayerParameters, measurable, parameters_of
from raylab.models.initial_laws import laws_of
from raylab.models.networks import Network, of_module, open_network
from raylab.models.recording.entry_laws import Fixed, Law
from raylab.models.sources import place_of
from raylab.registry import bind, call
from raylab.types import (
    ORIGINAL,
    Budget,
    Group,
    Outcome,
    Perturbation,
    Trial,
    digest,
)

if TYPE_CHECKING:
    from raylab.config import Config

COLUMNS: Mapping[str, type] = {
    **{"layer_index": int, "kind": str, "N": int, "M": int, "matrices": int, "origin": str, "device": str},
    **{"accuracy": float, "top5": float, "loss": float, "perplexity": float, "num_samples": int},
    **{"precision": str, "loss_error": float, "law": str, "bias": str, "buffers": str, "tied": str},
}
EVALUATION_VERSION = "1"  # raised whenever the same weights would give another accuracy, loss or perplexity
UNKNOWN = "how it was initialised is not known: let what makes the model take pretrained=False, and seed nothing itself"
TRIALS_A_RANGE = 20  # to come to a range costs at most one pass more, a twentieth of its work


@dataclass(frozen=True, kw_only=True)
class PerturbPretrained(Study):
    """The experiment, with every name resolved. Lies once on each node; its arrays are handed out without a copy."""

    network: Network
    data: EvaluationData
    layers: tuple[LayerParameters, ...]
    skipped: Mapping[str, str]  # layer -> why it is left out
    laws: Mapping[str, Law]  # parameter -> how it was initialised
    perturbations: Mapping[str, Perturbation]
    draws: int
    biases: str
    batch_size: int
    precision: str
    activations: Budget

    @property
    def identity(self) -> dict[str, str]:
        """What changes an answer and is in no config."""
        return self._identity(data=self.data.revision, model=self.network.digest, evaluation=self._protocol)

    @property
    def columns(self) -> Mapping[str, type]:
        """Every value a row may carry."""
        protocol = {name: str if value is None else type(value) for name, value in self.data.protocol.items()}
        return {**COLUMNS, **protocol, **spectral.columns(self.metrics, self.options)}

    def trials(self) -> list[Trial]:
        """The baseline, then the layers in order, each with every perturbation."""
        whole = self._trial(
            model=self.network.name,
            checkpoint=self.network.digest,
            data=self.data.revision,
            protocol=self._protocol,
        )
        names = [parameters.layer.name for parameters in self.layers]
        return [whole, *trials_of_layers(whole, names, list(self.perturbations), self.draws)]

    @property
    def _protocol(self) -> str:
        """Digest of what else changes an answer: rows of several folders may be read together."""
        laws = {name: str(law) for name, law in self.laws.items()}
        return digest([EVALUATION_VERSION, self.precision, self.biases, laws])

    def work(self, pending: Sequence[Trial]) -> dict[str, str]:
        """The model, the data, and how many passes over them."""
        passes = sum(trial.perturbation != ORIGINAL for trial in pending)
        return {
            "model": f"{self.network.name}, {self.network.origin}; {_count(self.network)} parameters",
            "data": described(self.data),
            "passes": f"{passes:,} over the data, each from just below its layer on, in {self.precision}",
        }

    def groups(self, pending: Sequence[Trial]) -> list[Group]:
        """The model as it is; then contiguous ranges of depth with about the same work each.

        Depth is the order in which the model registers its layers: another one would take a pass of the model here.
        Where it is not that of the pass, a range is still worked in the latter, and each may begin at the inputs: 40
        layers that are registered backwards or at random cost 1.03 to 1.06 times as much in all.
        """
        as_it_is = tuple(trial for trial in pending if trial.perturbation == ORIGINAL)
        perturbed = [trial for trial in pending if trial.perturbation != ORIGINAL]
        depth = {parameters.layer.name: k / len(self.layers) for k, parameters in enumerate(self.layers)}
        ranges = max(1, min(len(self.layers), round(len(perturbed) / TRIALS_A_RANGE)))
        share = sum(1 - depth[str(trial.layer)] for trial in perturbed) / ranges
        made: list[list[Trial]] = [[]]
        spent = 0.0
        for layer, trials in groupby(perturbed, key=lambda trial: str(trial.layer)):
            if spent >= share * len(made) - 1e-9:
                made.append([])
            of_layer = list(trials)
            made[-1] += of_layer
            spent += len(of_layer) * (1 - depth[layer])
        return [group for group in (as_it_is, *map(tuple, made)) if group]

    def run(self, group: Group) -> Iterator[Outcome]:
        """Walk the model through the group's layers, from where the worker's last group has left it if that helps."""
        from raylab.experiments import pretrained

        return pretrained.run(self, group)

    def release(self) -> None:
        """Let go of the model, and of the activations that this worker has come to."""
        from raylab.experiments import pretrained

        pretrained.release()


def build(config: Config) -> PerturbPretrained:
    """The experiment of a config. Raises UserError for any name, file or option that is not there."""
    metrics = metrics_of(config, COLUMNS)
    perturbations = perturbations_of(config)
    make = bind({key: value for key, value in config.model.items() if key != "name"}, "model")
    load = bind(config.data, "data")
    _require_place(make, config.model)
    network = _network(call(make, config.model, "model"), make, config.model)
    _require_theta_0(network, perturbations, make)
    data = data_of(load, config, network)
    laws = None if perturb.NEED_NO_LAW.issuperset(perturbations) else _laws(network)
    layers, skipped = _layers(network, laws, config)
    drawn = {name for parameters in layers for name in parameters.names}
    return PerturbPretrained(
        **common(config, metrics, make, load, *perturbations.values()),
        network=network,
        data=data,
        layers=tuple(layers),
        skipped=skipped,
        laws={name: law for name, law in (laws or {}).items() if name in drawn},
        perturbations=perturbations,
        draws=config.draws,
        biases=config.biases,
        batch_size=config.batch_size,
        precision=config.precision,
        activations=_of_a_worker(config.activations, config.cluster.gpus_per_worker),
    )


def _of_a_worker(budget: Budget, gpus: float) -> Budget:
    """What one of several workers on a GPU may hold there; a worker uses one GPU, however many it has."""
    return replace(budget, gpu_gb=budget.gpu_gb * min(gpus, 1.0)) if gpus else budget


def _network(made: Any, make: Any, model: Mapping[str, Any]) -> Network:
    """A user's function may give a torch module; one that takes `pretrained` says how it is built anew."""
    if isinstance(made, Network):
        return made
    anew = functools.partial(make, pretrained=False) if "pretrained" in inspect.signature(make).parameters else make
    given = ", ".join(f"{key}={value}" for key, value in model.items() if key not in ("_target_", "name"))
    origin = f"{model['_target_']}({given})"
    return of_module(str(model.get("name") or type(made).__name__), made, anew, origin=origin)


def _require_place(make: Any, model: Mapping[str, Any]) -> None:
    """theta_0 lies somewhere: what is missing there is said of it, not of the model."""
    place = model.get("initial")
    if not place or getattr(make, "func", None) is not open_network:
        return
    try:
        place_of(place, bool(model.get("download")))
    except UserError as error:
        raise UserError(f"model.initial={place} cannot be opened: {error}") from error


def _require_theta_0(network: Network, perturbations: Mapping[str, Perturbation], make: Any) -> None:
    needy = [name for name in perturbations if name in perturb.NEED_THETA_0]
    if needy and network.initial is None:
        takes_it = "initial" in inspect.signature(make).parameters
        raise UserError(
            f"{network.name} cannot be re-initialised: its theta_0 was never published. Leave out "
            f"{' and '.join(needy)} (perturbation=rerandomize)"
            f"{', or give model.initial=PLACE where it lies' if takes_it else ''}."
        )


def _laws(network: Network) -> dict[str, Law]:
    """Those that are known. A function that loads weights itself shows nothing but the weights it has loaded."""
    found = laws_of(network.anew) if network.anew else {}
    return {
        name: law
        for name, law in found.items()
        if name in network.tensors
        and not (isinstance(law, Fixed) and np.array_equal(law.values, network.tensors[name]))
    }


def _layers(
    network: Network, laws: Mapping[str, Law] | None, config: Config
) -> tuple[list[LayerParameters], dict[str, str]]:
    """The layers that can be perturbed, and why others cannot."""
    module = network.module()
    found, outside = measurable(module, config.spectral, config.layers)
    skipped = {item.layer.name: item.reason for item in outside}
    layers: list[LayerParameters] = []
    for layer, parameters in zip(found, parameters_of(module, found, config.spectral), strict=True):
        if parameters is None:
            skipped[layer.name] = "computed from other parameters: it cannot be given other weights by itself"
        elif laws is not None and not set(parameters.names) <= laws.keys():
            skipped[layer.name] = UNKNOWN
        else:
            layers.append(parameters if config.biases == "replaced" else replace(parameters, bias=None))
    if not layers:
        why = next(iter(skipped.items()), None)
        raise UserError(f"No layer of {network.name} can be perturbed{f': {why[0]}, {why[1]}' if why else ''}.")
    return layers, skipped


def _count(network: Network) -> str:
    total = sum(parameter.numel() for parameter in network.skeleton.parameters())
    return f"{total / 1e6:,.1f} million" if total >= 1e6 else f"{total:,}"
