"""Results folders such as `experiment=spectra` leaves: real spectra of made-up weights, written by the real sink."""

from pathlib import Path

import numpy as np
import pyarrow as pa

import raylab
from raylab.results import ParquetSink, schema
from raylab.types import Trial, TrialResult

METRICS = ("standard", "marchenko_pastur", "randomized", "esd")


def heavy(rng: np.random.Generator, rows: int, columns: int, df: float) -> np.ndarray:
    return rng.standard_t(df, size=(rows, columns)) / np.sqrt(columns)


def gpt(blocks: int, seed: int = 0, width: int = 24) -> dict[str, np.ndarray]:
    """A state dict with the names of GPT-2: one layer without a power law, one too small to be measured."""
    rng = np.random.default_rng(seed)
    weights = {"transformer.wte.weight": heavy(rng, 90, width, 4), "transformer.wpe.weight": heavy(rng, 32, width, 4)}
    for at in range(blocks):
        block, df = f"transformer.h.{at}", rng.uniform(2.2, 8)
        weights[f"{block}.attn.c_attn.weight"] = heavy(rng, width, 3 * width, df)
        weights[f"{block}.attn.c_proj.weight"] = heavy(rng, width, width, df)
        weights[f"{block}.mlp.c_fc.weight"] = heavy(rng, width, 4 * width, df + 1)
        weights[f"{block}.mlp.c_proj.weight"] = heavy(rng, 4 * width, width, df + 2)
    weights["transformer.h.0.mlp.c_fc.weight"] = np.eye(width)
    weights["lm_head.weight"] = heavy(rng, 90, width, 5)
    weights["tiny.weight"] = heavy(rng, 3, 3, 3)
    return weights


def analyzed(weights: dict[str, np.ndarray]) -> pa.Table:
    return raylab.analyze(weights, METRICS)


def folder(target: Path, models: dict[str, pa.Table]) -> Path:
    """A row a layer of each model, from tables of `raylab.analyze`."""
    rows = {name: table.to_pylist() for name, table in models.items()}
    kept = ("layer", "kind", "N", "M", "status", "reason", "metric_error")
    first = next(iter(rows.values()))[0]
    columns = {name: _kind(value) for name, value in first.items() if name not in kept} | {"num_tail": int}
    with ParquetSink(target, schema.schema(columns), {}) as sink:
        for model, layers in rows.items():
            for index, row in enumerate(layers):
                sink.write(_result(model, index, row, list(columns)))
    return target


def _kind(value: object) -> type:
    return {str: str, int: int, list: list}.get(type(value), float)


def _result(model: str, index: int, row: dict, columns: list[str]) -> TrialResult:
    trial = Trial("spectra", model, 0, f"digest of {model}", "", row["layer"], "original", 0, 0, "m")
    values = {name: row[name] for name in ("kind", "N", "M", *columns)} | {"layer_index": index}
    return TrialResult(trial, row["status"], values, error=row["reason"])
