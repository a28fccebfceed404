"""How far a metric moves when a layer is perturbed, in units of its own spread over trained models.

Shapes: m models, l layers, k metrics, B replicas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylab.results import rank
from raylab.results.cases import Cases, nanmean
from raylab.results.correlate import MIN_UNITS, Resampling

Float = NDArray[np.float64]
NO_SPREAD = 1e-9  # a standard deviation below this share of the mean is rounding
ROUNDING = 1e-12  # so is a sum of squares below this share of what it is a difference of


def spread(trained_ml: Float) -> tuple[Float, Float, str]:
    """Mean and standard deviation over trained models in each layer, (l,) each, and a status if no layer has any."""
    count, mean = np.isfinite(trained_ml).sum(axis=0), nanmean(trained_ml)
    square = np.where(np.isfinite(trained_ml), (trained_ml - mean) ** 2, 0.0).sum(axis=0)
    deviation = np.sqrt(np.divide(square, count - 1, out=np.full(len(mean), np.nan), where=count >= MIN_UNITS))
    flat = deviation <= NO_SPREAD * np.abs(mean)
    deviation[flat] = np.nan
    if np.isfinite(deviation).any():
        return mean, deviation, "ok"
    return mean, deviation, "no_spread" if flat.any() else "too_few_models" if count.any() else "no_values"


@dataclass(frozen=True)
class Shift:
    """Mean over robust layers of the change of each metric, in standard deviations over trained models."""

    signed: Float  # (l, k), of each robust layer; NaN where it has no spread or no value
    replicas: Float  # (B, l, k)
    pairs: NDArray[np.intp]  # (l, k): models that have both
    why: list[str]  # (k): where there is no number

    @classmethod
    def of(cls, cases: Cases, perturbation: str, layers: NDArray[np.intp], weights: Float) -> Shift:
        """How far these layers (places) move under a perturbation; weights: of the models, (B, m)."""
        trained = cases.trained[:, layers]
        change = cases.perturbed(perturbation)[:, layers] - trained
        spreads = [spread(trained[..., at]) for at in range(len(cases.metrics))]
        has = np.stack([np.isfinite(deviation) for _, deviation, _ in spreads], axis=1)
        one = np.ones((1, cases.models))
        usable = has & (np.isfinite(change).sum(axis=0) >= MIN_UNITS)
        replicas = (np.where(usable, _standardised(change, trained, each), np.nan) for each in (one, weights))
        signed, drawn = replicas
        return cls(signed[0], drawn, np.isfinite(change).sum(axis=0), [status for _, _, status in spreads])

    def status(self, at: int) -> str:
        """ok, partial (some robust layers), or why there is none."""
        some = np.isfinite(self.signed[:, at])
        if some.any():
            return "ok" if some.all() else "partial"
        return self.why[at] if self.why[at] != "ok" else "too_few_models" if self.pairs[:, at].any() else "no_values"

    def row(self, at: int, absolute: bool, resampling: Resampling) -> dict[str, float | int]:
        """The mean over layers, with its interval."""
        here = np.isfinite(self.signed[:, at])
        of = np.abs if absolute else np.asarray
        low, high = rank.interval(of(self.replicas[:, here, at]).mean(axis=1), resampling.confidence)
        n, units = int(self.pairs[here, at].sum()), int(self.pairs[here, at].max())
        estimate = float(of(self.signed[here, at]).mean())
        return {"estimate": estimate, "lo": low, "hi": high, "n": n, "n_layers": int(here.sum()), "n_units": units}


def _standardised(change_mlk: Float, trained_mlk: Float, weights_Bm: Float) -> Float:
    """Mean change over standard deviation, (B, l, k), with model u counted weights_Bm[b, u] times."""

    def total(values: Float) -> Float:
        return np.tensordot(weights_Bm, np.where(np.isfinite(values), values, 0.0), axes=1)

    def count(values: Float) -> Float:
        return np.tensordot(weights_Bm, np.isfinite(values).astype(float), axes=1)

    centred = trained_mlk - nanmean(trained_mlk)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = count(centred)
        whole = total(centred**2)
        square = whole - total(centred) ** 2 / n
        square[square <= ROUNDING * whole] = np.nan  # a replica that drew models of one value
        found = total(change_mlk) / count(change_mlk) / np.sqrt(square / (n - 1))
    return np.where(np.isfinite(found), found, np.nan)
