"""What an experiment of kind initial_layers has found of each draw of a population of layers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raylab import places
from raylab.data import parquet
from raylab.errors import UserError

COLUMNS = ["checkpoint", "perturbation", "seed", "draw", "status", "alpha", "seconds", "N", "M"]
RUN_INFO = "run.json"  # beside the rows: how they came about
ADVICE = "Run `python -m raylab.run experiment=alpha_at_init`, and give its results folder: pool=FOLDER."


class Draws(NamedTuple):
    """What is known of the draws of a population."""

    alpha: NDArray[np.float64]  # (draws,), up to the first that was not measured; NaN where one has no fit
    seconds: float  # of work for one
    shape: tuple[int, int]  # N, M of the layer's matrix

    def within(self, low: float, high: float) -> NDArray[np.intp]:
        """The numbers of the draws whose alpha is in [low, high], in rising order."""
        return np.flatnonzero((low <= self.alpha) & (self.alpha <= high))


NONE = Draws(np.empty(0), 0.0, (0, 0))


def draws(folder: str | Path, perturbation: str, seed: int) -> dict[str, Draws]:
    """Population -> its draws.

    Beyond a gap, which a run that is broken off leaves, the first draws that fit would be others once it is filled.
    Rows of another seed are other draws. Raises UserError where there is no such row, or a file is damaged.
    """
    import pyarrow as pa

    home = places.at(folder) / "trials"
    names = [name for name in home.names() if name.endswith(".parquet")]
    if not names:
        raise UserError(f"pool={folder} is no results folder with rows. {ADVICE}")
    with home.local(names) as files:
        parts = [pa.table({name: parquet.column(path, name, ADVICE) for name in COLUMNS}) for path in files]
    rows = pa.concat_tables(parts, promote_options="permissive")
    checkpoint, done, status = (
        np.array(rows.column(name).to_pylist()) for name in ("checkpoint", "perturbation", "status")
    )
    draw, alpha, seconds = (rows.column(name).to_numpy(zero_copy_only=False) for name in ("draw", "alpha", "seconds"))
    mine = (done == perturbation) & (rows.column("seed").to_numpy() == seed)
    if not mine.any():
        raise UserError(f"pool={folder} has no draws of seed {seed}. {ADVICE}")
    found: dict[str, Draws] = {}
    for population in dict.fromkeys(checkpoint[mine]):
        here = mine & (checkpoint == population)
        values, measured = np.full(int(draw[here].max()) + 1, np.nan), np.zeros(int(draw[here].max()) + 1, dtype=bool)
        values[draw[here]] = alpha[here].astype(np.float64)
        measured[draw[here & (status != "failed")]] = True
        whole = values[: int(np.argmin([*measured, False]))]
        n, m = (int(rows.column(side)[int(np.argmax(here))].as_py()) for side in ("N", "M"))
        found[str(population)] = Draws(whole, float(np.nan_to_num(seconds[here].astype(np.float64)).mean()), (n, m))
    return found


def spectral_options(folder: str | Path) -> dict[str, Any]:
    """How the draws were measured, where the folder says so."""
    return _run_info(folder).get("config", {}).get("spectral", {})


def command(folder: str | Path, draws: int) -> str:
    """What fills the pool to so many draws: the command that made it, where it says so."""
    unknown = ["python", "-m", "raylab.run", "experiment=alpha_at_init", f"results={folder}"]
    made_by = shlex.split(_run_info(folder).get("command", "")) or unknown
    kept = [word for word in made_by if not word.startswith(("draws=", "layers=", "plan="))]
    return shlex.join([*kept, f"draws={draws}"])


def _run_info(folder: str | Path) -> dict[str, Any]:
    """How the rows came about; empty where the folder does not say."""
    try:
        return dict(json.loads(places.at(folder).read(RUN_INFO)))
    except (OSError, ValueError, TypeError):
        return {}
