"""Results folders such as a run of kind `perturb_pretrained` leaves: one given model, made-up but plausible numbers.

A network for images with 21 layers, the first and the last critical and the middle robust; a language model with four
layers a block, the first block critical, whose broken perplexities are huge or infinite.
"""

import math
from pathlib import Path

import numpy as np

from raylab.results import ParquetSink, schema, write_run_info
from raylab.types import Trial, TrialResult

DRAWS = 10
COLUMNS = {
    "layer_index": int, "kind": str, "N": int, "M": int, "matrices": int, "accuracy": float, "top5": float,
    "loss": float, "perplexity": float, "num_samples": int, "alpha": float, "D": float, "sigma": float,
    "num_tail": int, "fit_status": str, "alpha_hat": float, "log_alpha_norm": float, "mp_softrank": float,
    "spectral_norm": float, "stable_rank": float, "entropy": float, "frobenius_norm": float,
}  # fmt: skip
IMAGE = {"crop": str, "subset": str}
TEXT = {"context": int, "stride": int, "joining": str, "normaliser": str, "subset": str}
BASELINE = {"accuracy": 0.9, "loss": 0.4}
TEXT_BASELINE = 3.5  # nats


def image_layers(blocks: int = 19) -> dict[str, tuple[str, int, int]]:
    """Name -> kind, N, M."""
    middle = {f"layer{1 + at // 7}.{at % 7}.conv": ("conv2d", 32, 16) for at in range(blocks)}
    return {"conv1": ("conv2d", 16, 3), **middle, "linear": ("linear", 64, 10)}


def text_layers(blocks: int = 6) -> dict[str, tuple[str, int, int]]:
    """Name -> kind, N, M."""
    found = {"transformer.wte": ("embedding", 5000, 64), "transformer.wpe": ("embedding", 128, 64)}
    for block in range(blocks):
        sizes = {"attn.c_attn": (192, 64), "attn.c_proj": (64, 64), "mlp.c_fc": (256, 64), "mlp.c_proj": (256, 64)}
        found |= {f"transformer.h.{block}.{name}": ("hf_conv1d", *size) for name, size in sizes.items()}
    return found


def trials(layers, name: str = "resnet20", draws: int = DRAWS) -> list[Trial]:
    """The baseline, every layer as it is, every layer `draws` times."""
    places = [(None, "original", 0), *((layer, "original", 0) for layer in layers)]
    places += [(layer, "rerandomize", draw) for layer in layers for draw in range(draws)]
    return [Trial("given", name, 0, "c" * 24, "d" * 24, *place, 0, "spectral-1") for place in places]


def left(place: float, text: bool) -> float:
    """What a re-randomised layer leaves on average: accuracy, or loss; place from 0 to 1."""
    if text:
        return TEXT_BASELINE + (6.0 if place < 0.1 else 0.05 + 0.4 * abs(place - 0.6))
    return 0.15 if place < 0.05 or place > 0.97 else 0.86 - 0.9 * abs(place - 0.6)


def result(trial: Trial, layers, text: bool) -> TrialResult:
    """A plausible result; the same for the same trial."""
    rng = trial.rng("made up")
    evaluated = _evaluated(trial, layers, text, rng)
    protocol = {"context": 1024, "stride": 1024, "joining": "blank_lines", "normaliser": "token"}
    values = evaluated | (protocol if text else {"crop": "bicubic 32, centre 32"})
    if trial.layer is None:
        return TrialResult(trial, "ok", values, seconds=9.0, host="node-1")
    place = list(layers).index(trial.layer)
    return TrialResult(trial, "ok", values | _measured(trial, layers, place, rng), seconds=3.0, host="node-1")


def _evaluated(trial: Trial, layers, text: bool, rng: np.random.Generator) -> dict[str, float | int]:
    spread = 0.0 if trial.perturbation == "original" else rng.normal()
    place = 0.0 if trial.layer is None else list(layers).index(trial.layer) / max(1, len(layers) - 1)
    whole = trial.perturbation == "original"
    if text:
        loss = TEXT_BASELINE if whole else left(place, True) + 0.02 * spread
        loss = 800.0 if not whole and trial.layer.endswith("wpe") and trial.draw == 0 else loss  # its exp overflows
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {"loss": loss, "perplexity": perplexity, "accuracy": 1.4 / loss, "num_samples": 250_000}
    accuracy = BASELINE["accuracy"] if whole else float(np.clip(left(place, False) + 0.02 * spread, 0.05, 0.9))
    return {"accuracy": accuracy, "top5": (1 + accuracy) / 2, "loss": -3.8 * math.log(accuracy), "num_samples": 10_000}


def _measured(trial: Trial, layers, place: int, rng: np.random.Generator) -> dict[str, float | int | str]:
    kind, N, M = layers[trial.layer]
    trained = trial.perturbation == "original"
    alpha = 2.5 + 2 * rng.random() if trained else math.exp(1.9 + 0.5 * rng.normal()) + 1.2
    largest = (1 + place / len(layers)) * (4.0 if trained else 1.0 + 0.05 * rng.normal())
    total = M * largest / (4 if trained else 2)
    return {
        "layer_index": place, "kind": kind, "N": N, "M": M, "matrices": 9 if kind == "conv2d" else 1, "alpha": alpha,
        "D": 0.05 + 0.02 * rng.random(), "sigma": (alpha - 1) / 4, "num_tail": 16, "fit_status": "ok",
        "alpha_hat": alpha * math.log10(largest), "log_alpha_norm": alpha * math.log10(largest) + 0.5,
        "mp_softrank": (0.5 if trained else 0.98) * (1 + 0.02 * rng.normal()), "spectral_norm": largest,
        "stable_rank": total / largest, "entropy": (0.9 if trained else 0.95) + 0.01 * rng.random(),
        "frobenius_norm": math.sqrt(total),
    }  # fmt: skip


def folder(target: Path, text: bool = False, layers=None, share: float = 1.0, name: str | None = None) -> Path:
    """Write a results folder; `share` of it, where the run is to look unfinished."""
    layers = layers or (text_layers() if text else image_layers())
    plan = trials(layers, name or ("gpt2-small" if text else "resnet20"))
    write_run_info(target, run_info(text, len(plan)))
    with ParquetSink(target, schema.schema(COLUMNS | (TEXT if text else IMAGE)), {}, flush_rows=400) as sink:
        for trial in plan[: round(share * len(plan))]:
            sink.write(result(trial, layers, text))
    return target


def run_info(text: bool, planned: int) -> dict[str, object]:
    return {
        "config": {
            "name": "given", "kind": "perturb_pretrained", "seed": 0, "draws": DRAWS,
            "data": {"name": "wikitext-103 test" if text else "cifar-10 test", "split": "test"},
        },
        "digest": "0" * 24, "code": "0.1.0", "planned": planned,
        "command": f"python -m raylab.run experiment={'gpt2' if text else 'cifar_resnet'}",
    }  # fmt: skip
