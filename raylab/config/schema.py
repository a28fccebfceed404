"""The typed schema of conf/: every knob with its type, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raylab.types import ORIGINAL, Budget, Recipe, RetractionOptions, SpectralOptions


@dataclass(kw_only=True)
class ClusterConfig:
    """Where the work runs."""

    # "ray"; or in this process: "threads", side by side, or "inline", one trial after another (for a debugger)
    backend: str = "ray"
    address: str = "local"  # "local" starts Ray here and joins nothing; "auto" or HOST:PORT joins a cluster
    workers: int | None = None  # at most so many at a time; null: one a core (or one a GPU share)
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0  # fractions share a GPU
    eigen_actors: int | None = None  # null: one for every four workers, at least one
    gpus_per_eigen_actor: float = 0.0
    # shared memory for weights on their way, beside that of model and data themselves, when address is "local"
    object_store_gb: float = 0.5
    memory_gb_per_worker: float = 0.0  # GiB set aside on its node; 0: not asked for. None is held to it
    # attempts after the first of what a worker or node was lost with, ran out of memory or kept silent for too long
    retries: int = 3
    # of silence between two results, after which what a worker is at is tried elsewhere; null: ten times the longest
    # of the run so far, at least five minutes, up to a day for what costs more than all that has come back (a training
    # among models that are read from checkpoints), and twice as long with each attempt
    deadline_minutes: float | None = None


@dataclass(kw_only=True)
class TuneConfig:
    """What `python -m raylab.tune` searches, and how; raylab.run reads none of it."""

    # key of the config -> what it is searched over, in Hydra's words: "tag(log,interval(1e-3,1e-1))", "choice(16,32)".
    # A command line says the same as key=interval(...), and wins.
    space: dict[str, Any] = field(default_factory=dict)
    search: str | None = (
        None  # "grid", "random", "optuna"; null: a grid where every key has a list of values, or random
    )
    samples: int = 20  # of a search that is not a grid
    scheduler: str = "none"  # "asha" stops samples that fall behind, at epochs grace, grace x reduction, ...
    grace: int = 1  # epochs that each sample is given
    reduction: int = 3  # at such an epoch the best 1 / reduction of the samples seen there go on
    metric: str = "accuracy"  # column of the whole model's row that samples are ranked by
    mode: str = "max"  # or "min", such as of loss
    max_concurrent: int | None = None  # samples at a time; null: as many as there is room for


@dataclass(kw_only=True)
class TrackingConfig:
    """Who is told how a run goes, beside its results folder."""

    backend: str = "none"  # "trackio" or "wandb", which must be installed; told: progress, config, correlations
    project: str = "raylab"  # under which it lists the run


@dataclass(kw_only=True)
class Config:
    """One run."""

    name: str  # of the experiment; set by conf/experiment/*.yaml
    kind: str = "perturb_layers"  # which class of raylab.experiments
    results: str = "results/${name}"  # folder
    seed: int = 0
    plan: bool = False  # show the plan and stop
    progress: str = "auto"  # "auto" (rich on a terminal, else plain), "rich", "plain", "none"
    report: bool = True  # draw the report in the end; `python -m raylab.report FOLDER` does so at any time

    models: int = 1  # how many models are trained alike, each from its own initialisation
    stack: int = 1  # models trained together by one worker: 1 on a CPU core, 25 to 100 on a GPU
    model: dict[str, Any] = field(default_factory=dict)  # _target_ and its arguments; name: what rows call it
    data: dict[str, Any] = field(default_factory=dict)  # _target_ and its arguments
    train: Recipe = field(default_factory=Recipe)
    batch_size: int = 2500  # samples a forward pass in evaluation; halved when memory runs out
    precision: str = "float32"  # of evaluation: also "tf32", "bfloat16", "float16"; the baseline says what it costs
    activations: Budget = field(default_factory=Budget)  # where a worker keeps those below the layer it is at
    biases: str = "replaced"  # with their weights, or "kept", where a given model's layer is perturbed
    layers: list[str] = field(default_factory=lambda: ["*"])  # globs over layer names
    perturbations: list[str] = field(default_factory=lambda: [ORIGINAL])
    draws: int = 1  # repetitions of each random perturbation
    pool: str | None = None  # results folder of initial layers, of which models are made
    ranges: list[Any] = field(default_factory=list)  # pairs, lowest and highest alpha of the layers of such models
    # how the singular values of such models are kept while they are trained; svd_projection: put back once an epoch
    # rather than kept; free: not at all
    retractions: list[str] = field(default_factory=lambda: ["newton_schulz"])
    retraction: RetractionOptions = field(default_factory=RetractionOptions)
    similarity: bool = True  # compare each layer's output with the original's
    metrics: list[str] = field(default_factory=lambda: ["standard", "marchenko_pastur", "randomized"])
    spectral: SpectralOptions = field(default_factory=SpectralOptions)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


# The parts of a config that have keys of their own.
SECTIONS: dict[str, Any] = {
    "": Config,
    "cluster": ClusterConfig,
    "train": Recipe,
    "spectral": SpectralOptions,
    "activations": Budget,
    "tune": TuneConfig,
    "tracking": TrackingConfig,
    "retraction": RetractionOptions,
}
