"""The nouns of raylab.

Everything that two rooms of the house talk about is defined here, and this module imports nothing of
ours but what hides secrets, so that any of them may use it. It needs numpy only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from raylab import redact

Array = NDArray[Any]
Status = Literal["ok", "failed", "skipped"]
Value = float | int | str | Array | None  # an array is one of float64, a column of lists

# The perturbation that leaves a layer as it is. Its rows carry the spectra of the trained layers.
ORIGINAL = "original"


def digest(thing: object, size: int = 12) -> str:
    """Hex BLAKE2b digest (2 * `size` characters) of anything JSON can write; key order does not matter."""
    text = json.dumps(thing, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def generator(seed: int, *identity: object) -> np.random.Generator:
    """The generator that belongs to a seed and an identity: never global, the same in every process."""
    return np.random.default_rng([seed, int(digest(identity), 16)])


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model: a place that holds a weight tensor of two or more dimensions."""

    name: str  # dotted module path, "fc1"
    index: int  # position in the order of the forward pass, from 0
    kind: str  # "linear", "conv2d", "expert", ...; all in raylab/layers/kinds.py
    shape: tuple[int, ...]  # of the tensor; of a part or an expert its own, without dimensions of 1 for a "matrix"
    groups: int = 1  # of a convolution
    parameter: str = ""  # the stored tensor it is, or is a part of, by its name in the state dict


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One parameter tensor of a layer, with what a perturbation may make of it."""

    layer: Layer
    parameter: str  # "weight" or "bias"
    trained: Array
    initial: Array | None  # theta_0, or None where it was never published
    draw: Callable[[np.random.Generator], Array]  # a fresh tensor from the law of the initialisation


class Perturbation(Protocol):
    """What takes the place of a trained parameter tensor: same shape, same dtype."""

    def __call__(self, weights: LayerWeights, rng: np.random.Generator, /) -> Array:
        """The new tensor."""
        ...


@dataclass(kw_only=True)
class SpectralOptions:
    """How weights become eigenvalues and eigenvalues become a power law. Changes the answer; is part of a row."""

    estimator: str = "ks"  # minimise the KS distance over xmin (Clauset et al. 2009), the field's alpha
    small_sample: str = (
        "oracle"  # below 20 eigenvalues: "oracle" = weightwatcher 0.7.7, "standard" = the same rule as above 20
    )
    threshold: float = 1e-5  # eigenvalues at or below it never enter a fit
    threshold_kind: str = "absolute"  # (parity) or "relative": times the largest eigenvalue, scale invariant
    conv: str = "pooled"  # treatment of convolutions: "pooled", "slices", "reshape", "fft"
    groups: str = "stored"  # grouped convolutions: "stored", (out, in/groups) as the tensor lies; "blocks", each group
    split: bool = False  # fused tensors as their parts: q, k, v; the gates of an LSTM or GRU; gate and up
    dtype: str = "float64"  # of the Gram matrix and its eigenvalues: "float64" or "float32"
    device: str = "auto"  # "auto" (a GPU if there is one), "cpu", "numpy" (alone), "cuda", "torch-cuda", "cupy"
    min_evals: int | None = 8  # a layer with fewer eigenvalues is listed as skipped; None: no limit
    max_evals: int | None = None
    max_N: int | None = None
    # The metric "uncertainty". A share p of n replicas is known to 1 / (2 sqrt(n)): 0.035 for 200, 0.01 for 2,500.
    bootstrap: int = 200  # resamplings behind the confidence interval of alpha; 0: none
    synthetic: int = 200  # samples of the fitted law behind the goodness-of-fit p-value; 0: none
    confidence: float = 0.95  # of that interval
    # estimator="farms": windows of one aspect ratio instead of W. The defaults are those of the authors' code (their
    # runs of language models: 2,000 rows, aspect 1, 15 places).
    farms_rows: int = 100  # of a window; fewer where W is smaller, the aspect ratio kept
    farms_aspect: float = 2.0  # columns over rows of a window
    farms_places: int = 10  # windows along each side, spread evenly over W, where farms_step is 0
    farms_step: int = 0  # rows or columns from a window to the next, instead of a number of places


@dataclass(kw_only=True)
class Budget:
    """How much of a model's activations one worker may hold where. What fits nowhere else goes to disk."""

    gpu_gb: float = 16.0  # of the memory of a whole GPU; a worker with a share of one has that share of it
    host_gb: float = 8.0
    folder: str | None = None  # for what is left; null: the system's folder of temporary files


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Spectrum:
    """The empirical spectral density (ESD) of one layer.

    Compared by identity, so that several metrics can share what one of them computed (a power-law fit).
    """

    evals: NDArray[np.float64]  # ascending eigenvalues of W^T W, not divided by N; shape (num_evals,)
    N: int  # the longer side
    M: int  # the shorter side
    layer: Layer | None = None
    # (slices, rows, cols), what `evals` were computed from (conv="fft": the slices of the kernel); for the control
    matrices: Array | None = None
    seed: int = 0  # of metrics that need randomness (the permuted control, bootstrap)
    options: SpectralOptions = field(default_factory=SpectralOptions)


@dataclass(frozen=True, slots=True)
class PowerLawFit:
    """rho(lambda) ~ lambda^-alpha for lambda >= xmin. A fit that fails has a status and NaN, never -1."""

    alpha: float
    xmin: float
    xmax: float
    D: float  # Kolmogorov-Smirnov distance of the tail
    sigma: float  # (alpha - 1) / sqrt(num_tail)
    num_tail: int  # eigenvalues >= xmin
    status: str  # "ok", or why there is no fit


# A metric is a plain function: one number (the column takes the function's name) or several with their names.
Metric = Callable[[Spectrum], "float | Mapping[str, Value]"]


@dataclass(kw_only=True)
class Recipe:
    """How a model is trained; plain stochastic gradient descent unless more is said."""

    learning_rate: float = 0.05  # the largest one, where it has a schedule
    batch_size: int = 256
    epochs: int = 12
    momentum: float = 0.0
    weight_decay: float = 0.0  # of every parameter; added to the gradient, but with adamw
    # What follows is for training by autograd (raylab/train/autograd.py). Networks that take it go that way.
    optimizer: str = "sgd"  # or "adamw", with torch's betas
    schedule: str = "constant"  # of the learning rate, after warm-up; or "cosine", down to zero
    warmup: float = 0.0  # epochs in which the learning rate grows in equal steps
    label_smoothing: float = 0.0  # share of a label that is spread over all classes, 0 to 1
    augmentation: str = "none"  # of images: "crop" (of 4 pixels more on each side), "crop_flip" (and left to right)

    @property
    def given(self) -> dict[str, Any]:
        """Its fields, without later ones that are at their defaults: the digests of older recipes stay as they were."""
        plain = asdict(Recipe())
        return {key: value for key, value in asdict(self).items() if key in PLAIN_SGD or value != plain[key]}

    @property
    def is_plain(self) -> bool:
        """Whether it says no more than plain SGD can do."""
        return self.given.keys() == PLAIN_SGD


PLAIN_SGD = {"learning_rate", "batch_size", "epochs", "momentum", "weight_decay"}


@dataclass(kw_only=True)
class RetractionOptions:
    """How often, and how thoroughly, U and V of W = U S V^T are made orthonormal again while they are trained."""

    every: int = 4  # steps from one retraction to the next
    iterations: int = 2  # of newton_schulz


@dataclass(frozen=True, slots=True)
class Trial:
    """What identifies a piece of work. Two trials with the same id have the same answer."""

    experiment: str
    model: str  # a name to read: "fcn-512x5"
    replicate: int  # which of the models trained alike, from 0
    checkpoint: str  # digest of all that determines the weights: a recipe and its seed, or a file's content
    data: str  # revision of the evaluation data
    layer: str | None  # None: the whole, unperturbed model (the baseline)
    perturbation: str
    draw: int  # which repetition of the perturbation
    seed: int
    metrics: str  # digest of the metrics, their options and version
    own_code: str = ""  # digest of the code outside raylab that is run: perturbations, metrics, model, data
    protocol: str = ""  # digest of how it is perturbed and evaluated, where that is a choice: precision, biases, laws
    _id: str | None = field(default=None, init=False, repr=False, compare=False)  # once it was asked for

    @property
    def id(self) -> str:
        """Digest of every field, 24 hex characters; of `protocol` where there is a choice."""
        if self._id is None:
            said = {name: getattr(self, name) for name in _IDENTITY}
            if not self.protocol:
                del said["protocol"]
            object.__setattr__(self, "_id", digest(said))
        return str(self._id)

    def rng(self, purpose: str = "") -> np.random.Generator:
        """The trial's own generator: the same numbers whatever the order, the node or the number of workers.

        They belong to the weights and what is done to them, not to how the outcome is measured: two sets of metrics
        see the same re-randomised layer.
        """
        return generator(self.seed, self.checkpoint, self.layer, self.perturbation, self.draw, purpose)


_IDENTITY = tuple(each.name for each in fields(Trial) if each.compare)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What became of a trial. `values` holds one entry a column that the experiment declares."""

    trial: Trial
    status: Status
    values: Mapping[str, Value]
    error: str | None = None  # the traceback of a failed trial, the reason of a skipped one
    seconds: float = 0.0  # of work, over all stages, without waiting
    host: str = ""

    def __post_init__(self) -> None:
        # On the worker, whose environment the driver does not know; and however the failure came about.
        if self.error is not None:
            object.__setattr__(self, "error", redact.text(self.error))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial between evaluation and measurement: the result so far, and the weights still to be measured."""

    result: TrialResult
    layer: Layer | None = None
    weights: Array | None = None


Group = tuple[Trial, ...]
Measure = Callable[[Sequence[Outcome]], list[TrialResult]]  # in the order of the outcomes; picklable


class Experiment(Protocol):
    """Which trials there are, and what one of them computes. Picklable; knows nothing of how work is spread."""

    @property
    def columns(self) -> Mapping[str, type]:
        """Name -> float, int or str of every value its results may carry."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What changes an answer and is in no config: the version of the metrics, the content of the data."""
        ...

    @property
    def skipped(self) -> Mapping[str, str]:
        """Layer -> why it is left out."""
        ...

    def trials(self) -> Sequence[Trial]:
        """Every trial of the experiment, in the order they should be worked."""
        ...

    def work(self, pending: Sequence[Trial]) -> Mapping[str, str]:
        """What the pending trials will cost, for a person: "models to train" -> "20 of 20"."""
        ...

    def groups(self, pending: Sequence[Trial]) -> Sequence[Group]:
        """Trials that one worker should do in one go, because they share models and their activations."""
        ...

    def costs(self, groups: Sequence[Group]) -> Sequence[float]:
        """What each group will take, in the experiment's own unit: expensive ones go first, equal ones in order.

        One that costs no more than others that have given results is given up when it is silent for far longer.
        """
        ...

    def run(self, group: Group) -> Iterator[Outcome]:
        """Evaluate the trials of a group, one at a time. A trial that fails is an outcome too."""
        ...

    def release(self) -> None:
        """Let go of what `run` has kept from one group to the next in this thread."""
        ...

    @property
    def measure(self) -> Measure:
        """The spectral part of trials, all that an eigensolver is given. (A plain method takes its object along.)"""
        ...
