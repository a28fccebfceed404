"""A results folder such as `fcn_mnist` leaves, with made-up but plausible numbers, written by the real sink."""

import math
from pathlib import Path

import numpy as np

from raylab.results import ParquetSink, schema, write_run_info
from raylab.types import Trial, TrialResult

LAYERS = {
    "fc1": (784, 512),
    "fc2": (512, 512),
    "fc3": (512, 512),
    "fc4": (512, 512),
    "fc5": (512, 512),
    "fc6": (512, 10),
}
CONDITIONS = ("original", "reinit", "rerandomize", "reinit_signs")
ACCURACY = {
    "original": (0.9747,) * 6,
    "reinit": (0.669, 0.952, 0.967, 0.971, 0.968, 0.947),
    "rerandomize": (0.11, 0.104, 0.109, 0.107, 0.112, 0.103),
    "reinit_signs": (0.526, 0.911, 0.945, 0.960, 0.955, 0.918),
}
SPREAD = {"original": 0.0008, "reinit": 0.008, "rerandomize": 0.022, "reinit_signs": 0.014}
TRAINED_ALPHA = (4.84, 4.24, 4.09, 4.11, 4.20, 6.8)
COLUMNS = {
    "accuracy": float, "loss": float, "num_samples": int,
    "activation_disagreement": float, "js_divergence": float, "linear_cka": float,
    "alpha": float, "xmin": float, "xmax": float, "D": float, "sigma": float, "num_tail": int, "fit_status": str,
    "estimator": str, "num_evals": int, "alpha_hat": float, "log_alpha_norm": float, "log_norm": float,
    "frobenius_norm": float, "spectral_norm": float, "log_spectral_norm": float, "sigma_max": float,
    "stable_rank": float, "entropy": float, "matrix_rank": int, "rank_loss": int, "mp_softrank": float,
    "mp_sigma": float, "bulk_edge": float, "num_spikes": int, "mp_status": str, "num_erg": int, "erg_gap": float,
}  # fmt: skip
PROVENANCE = {
    "config": "3f1c0a9d2b7e", "code": "0.1.0+bd4d5b0", "versions": '{"numpy": "2.4.6", "torch": "2.11.0"}',
    "device": "cpu", "dtype": "float64", "small_sample": "standard", "threshold": 1e-5, "threshold_kind": "absolute",
    "conv": "pooled", "started_at": "2025-11-23T01:00:00+00:00",
}  # fmt: skip
# (replicate, layer, perturbation)
FAILED = {(1, "fc2", "rerandomize"), (1, "fc5", "reinit")}
TRACEBACK = """Traceback (most recent call last):
  File "raylab/spectral/esd.py", line 71, in eigenvalues
    evals = np.linalg.eigvalsh(gram)
numpy.linalg.LinAlgError: Eigenvalues did not converge"""


def trials(models: int, seed: int = 0) -> list[Trial]:
    """All trials of `models` models: the baseline, then every layer under every condition."""
    places = [(None, "original"), *((layer, condition) for layer in LAYERS for condition in CONDITIONS)]
    return [
        Trial("fcn_mnist", "fcn-512x5", model, f"{model:024x}", "mnist", layer, condition, 0, seed, "spectral-1")
        for model in range(models)
        for layer, condition in places
    ]


def result(trial: Trial) -> TrialResult:
    """A plausible result; the same for the same trial. Two rows of the second model have failed."""
    rng = trial.rng("made up")
    if trial.layer is None:
        values = {"accuracy": 0.9747 + 0.0008 * rng.normal(), "loss": 0.081, "num_samples": 10_000}
        return TrialResult(trial, "ok", values, seconds=0.4, host="node-1")
    if (trial.replicate, trial.layer, trial.perturbation) in FAILED:
        return TrialResult(trial, "failed", {}, TRACEBACK, seconds=0.1, host="node-2")
    return TrialResult(trial, "ok", _values(trial, rng), seconds=float(rng.gamma(4, 0.03)), host="node-1")


def _values(trial: Trial, rng: np.random.Generator) -> dict[str, float | int | str | None]:
    place, (N, M) = list(LAYERS).index(str(trial.layer)), LAYERS[str(trial.layer)]
    condition = trial.perturbation
    accuracy = float(np.clip(ACCURACY[condition][place] + SPREAD[condition] * rng.normal(), 0.05, 0.995))
    trained, signs = condition == "original", condition == "reinit_signs"
    alpha = TRAINED_ALPHA[place] + 0.3 * rng.normal() if trained else math.exp(2.2 + 0.45 * rng.normal()) + 1.5
    if signs:
        alpha = math.exp(2.25 + 0.45 * rng.normal()) + 1.5
    no_fit = rng.random() < 0.01
    largest = (4 / 3 if not trained else 2.6) * (1 + 0.02 * rng.normal()) * (1 + 0.15 * (place == 0))
    total = M / 3 * (1.25 if trained else 1) * (1 + 0.004 * rng.normal())
    apart = {"original": 0.0, "reinit": 0.16, "rerandomize": 0.5, "reinit_signs": 0.19}[condition]
    tail = int(rng.integers(min(M, 8) // 2 + 1, max(M // 3, 8)))
    return {
        "layer_index": place, "kind": "linear", "N": N, "M": M,
        "accuracy": accuracy, "loss": -math.log(accuracy) * 1.8, "num_samples": 10_000,
        "activation_disagreement": apart * (1 + 0.05 * rng.normal()),
        "js_divergence": apart / 4 * (1 + 0.1 * rng.normal()),
        "linear_cka": min(1.0, 1 - 1.1 * apart * (1 + 0.08 * rng.normal())),
        "alpha": math.nan if no_fit else alpha, "fit_status": "all eigenvalues are equal" if no_fit else "ok",
        "estimator": "ks", "num_evals": M, "num_tail": tail,
        "xmin": 0.4 * largest, "xmax": largest, "D": 0.03 + 0.02 * rng.random(), "sigma": (alpha - 1) / math.sqrt(tail),
        "alpha_hat": alpha * math.log10(largest), "log_alpha_norm": alpha * math.log10(largest) + 0.8,
        "log_norm": math.log10(total), "frobenius_norm": math.sqrt(total), "spectral_norm": largest,
        "log_spectral_norm": math.log10(largest), "sigma_max": math.sqrt(largest), "stable_rank": total / largest,
        "entropy": (0.93 if trained else 0.955) + 0.002 * rng.normal(), "matrix_rank": M, "rank_loss": 0,
        "mp_softrank": (0.52 if trained else 0.98) * (1 + 0.02 * rng.normal()), "mp_sigma": 0.57, "bulk_edge": 1.31,
        "num_spikes": int(rng.integers(6, 14)) if trained else 0, "mp_status": "ok",
        "num_erg": tail + 3, "erg_gap": 3.0,
    }  # fmt: skip


def run_info(models: int) -> dict[str, object]:
    return {
        "config": {
            "experiment": {"name": "fcn_mnist", "replicates": models, "perturbations": list(CONDITIONS[1:])},
            "model": {"_target_": "raylab.models.fcn:FCN", "width": 512, "depth": 5},
            "train": {"learning_rate": 0.05, "batch_size": 256, "epochs": 12},
            "seed": 0,
        },
        "digest": PROVENANCE["config"],
        "command": "python -m raylab.run experiment=fcn_mnist",
        "versions": {"python": "3.11.2", "numpy": "2.4.6", "torch": "2.11.0", "ray": "2.55.0"},
        "planned": 25 * models,
        "started_at": "2025-11-23T01:00:00+00:00",
    }


def folder(target: Path, models: int = 100, share: float = 1.0) -> Path:
    """Write a results folder; `share` of it, where the run is to look unfinished."""
    plan = trials(models)
    write_run_info(target, run_info(models))
    with ParquetSink(target, schema.schema(COLUMNS), PROVENANCE, flush_rows=400) as sink:
        for trial in plan[: int(share * len(plan))]:
            sink.write(result(trial))
    return target
