"""What the types of a config cannot say: each refusal is one line that says what to give instead."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from raylab.errors import UserError
from raylab.registry import suggest
from raylab.types import Budget, Recipe

if TYPE_CHECKING:
    from raylab.config.schema import ClusterConfig, Config, TuneConfig


def check(config: Config) -> None:
    """Raise UserError for a value that no run can have."""
    positive = {"models": config.models, "stack": config.stack, "draws": config.draws, "batch_size": config.batch_size}
    positive |= {"train.epochs": config.train.epochs, "train.batch_size": config.train.batch_size}
    positive |= {f"retraction.{key}": value for key, value in asdict(config.retraction).items()}
    for key, value in positive.items():
        if value < 1:
            raise UserError(f"{key}={value} must be at least 1.")
    if config.seed < 0:
        raise UserError(f"seed={config.seed} must not be negative.")
    _check_recipe(config.train)
    _check_cluster(config.cluster)
    _check_activations(config.activations)
    _check_tuning(config.tune)
    if config.precision == "tf32" and config.cluster.backend == "threads":
        raise UserError("precision=tf32 is for a whole process, which cluster=threads shares: leave out one of them.")
    choices = {
        "cluster.backend": (config.cluster.backend, ("ray", "threads", "inline")),
        "precision": (config.precision, ("float32", "tf32", "bfloat16", "float16")),
        "biases": (config.biases, ("replaced", "kept")),
        "tracking.backend": (config.tracking.backend, ("none", "trackio", "wandb")),
        "progress": (config.progress, ("auto", "rich", "plain", "none")),
        "train.optimizer": (config.train.optimizer, ("sgd", "adamw")),
        "train.schedule": (config.train.schedule, ("constant", "cosine")),
        "train.augmentation": (config.train.augmentation, ("none", "crop", "crop_flip")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise UserError(f"{key}={value} is not known.{suggest(value, known)}")


def _check_recipe(recipe: Recipe) -> None:
    if not recipe.learning_rate > 0:
        raise UserError(f"train.learning_rate={recipe.learning_rate:g} must be more than 0, such as 0.05.")
    if not 0 <= recipe.momentum < 1:
        raise UserError(f"train.momentum={recipe.momentum:g} must be at least 0 and below 1.")
    if not recipe.weight_decay >= 0:
        raise UserError(f"train.weight_decay={recipe.weight_decay:g} must be at least 0.")
    if not 0 <= recipe.warmup <= recipe.epochs:
        raise UserError(f"train.warmup={recipe.warmup:g} must be between 0 and train.epochs={recipe.epochs}.")
    if not 0 <= recipe.label_smoothing < 1:
        raise UserError(f"train.label_smoothing={recipe.label_smoothing:g} must be at least 0 and below 1.")
    if recipe.optimizer == "adamw" and recipe.momentum:
        raise UserError(
            f"train.momentum={recipe.momentum:g} is for train.optimizer=sgd, and adamw would not read it: leave it out."
        )


def _check_activations(budget: Budget) -> None:
    for key in ("gpu_gb", "host_gb"):
        if getattr(budget, key) < 0:
            raise UserError(f"activations.{key}={getattr(budget, key):g} must be at least 0.")
    if budget.folder is not None and not Path(budget.folder).is_dir():
        raise UserError(f"activations.folder={budget.folder} is no folder: make it, or leave it out.")


def _check_tuning(tune: TuneConfig) -> None:
    least = {"samples": 1, "grace": 1, "reduction": 2, "max_concurrent": 1}
    for key, minimum in least.items():
        value = getattr(tune, key)
        if value is not None and value < minimum:
            raise UserError(f"tune.{key}={value} must be at least {minimum}.")
    choices = {"search": ("grid", "random", "optuna"), "scheduler": ("none", "asha"), "mode": ("max", "min")}
    for key, known in choices.items():
        value = getattr(tune, key)
        if value is not None and value not in known:
            raise UserError(f"tune.{key}={value} is not known.{suggest(value, known)}")


def _check_workers(cluster: ClusterConfig) -> None:
    if cluster.workers is None:
        return
    if cluster.backend == "inline":
        raise UserError(f"cluster.workers={cluster.workers}: cluster=inline has one, this process. Leave out either.")
    here = cluster.backend == "threads" or cluster.address == "local"
    most = 4 * max(2, os.cpu_count() or 1)
    if cluster.workers < 1 or (here and cluster.workers > most):
        allowed = f"between 1 and {most} on this machine" if here else "at least 1"
        raise UserError(f"cluster.workers={cluster.workers} must be {allowed}, or null.")


def _check_address(cluster: ClusterConfig) -> None:
    if "://" in cluster.address:
        raise UserError(
            f"cluster.address={cluster.address}: give HOST:PORT of the head of a Ray that this machine is part of, "
            "such as 10.0.0.1:6379, or auto."
        )


def _check_cluster(cluster: ClusterConfig) -> None:
    _check_workers(cluster)
    _check_address(cluster)
    if cluster.eigen_actors is not None and cluster.eigen_actors < 1:
        raise UserError(f"cluster.eigen_actors={cluster.eigen_actors} must be at least 1, or null.")
    if cluster.cpus_per_worker <= 0:
        raise UserError(f"cluster.cpus_per_worker={cluster.cpus_per_worker:g} must be more than 0, such as 1 or 0.5.")
    if cluster.deadline_minutes is not None and cluster.deadline_minutes <= 0:
        raise UserError(f"cluster.deadline_minutes={cluster.deadline_minutes:g} must be more than 0, or null.")
    shares = ("gpus_per_worker", "gpus_per_eigen_actor", "memory_gb_per_worker")
    for key in shares if cluster.backend in ("inline", "threads") else ():
        if getattr(cluster, key):
            raise UserError(
                f"cluster.{key}={getattr(cluster, key):g} is for workers of Ray, which cluster={cluster.backend} has "
                "not: leave it out, or give cluster=local."
            )
    least = {"gpus_per_worker": 0, "gpus_per_eigen_actor": 0, "memory_gb_per_worker": 0}
    least |= {"retries": 0, "object_store_gb": 0.1}
    for key, minimum in least.items():
        if getattr(cluster, key) < minimum:
            raise UserError(f"cluster.{key}={getattr(cluster, key):g} must be at least {minimum:g}.")
