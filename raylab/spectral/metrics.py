"""The metrics that ship with raylab: plain functions of a Spectrum, entered in a registry.

Column names and definitions: a name as in weightwatcher has weightwatcher's definition. Where a number does not exist
(the logarithm of nothing, a fit that failed), it is NaN for a float and None for a count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from raylab.layers import is_convolution
from raylab.registry import Registry
from raylab.spectral.backend import eigenvalues
from raylab.spectral.marchenko_pastur import MarchenkoPasturFit, fit_bulk
from raylab.spectral.power_law import fit, fitted_evals
from raylab.spectral.torus import torus_eigenvalues
from raylab.spectral.uncertainty import uncertainty
from raylab.types import Array, Metric, Spectrum, Value

EPSILON = 1e-10  # weightwatcher's guard against the logarithm of zero, in the entropy
MACHINE_EPSILON = float(np.finfo(np.float64).eps)
FEW_EVALS = 100  # below this many eigenvalues the permuted control pools several permutations
PERMUTATIONS_OF_FEW = 5


def standard(spectrum: Spectrum) -> Mapping[str, Value]:
    """Everything that needs neither a Marchenko-Pastur fit nor a permuted control."""
    return {**power_law(spectrum), **norms(spectrum), **erg(spectrum)}


def power_law(spectrum: Spectrum) -> Mapping[str, Value]:
    """alpha and what belongs to it, and the two metrics that combine alpha with a norm."""
    found = fit(spectrum)
    ok = found.status == "ok"
    return {
        "alpha": found.alpha,
        "xmin": found.xmin,
        "xmax": found.xmax,
        "D": found.D,
        "sigma": found.sigma,
        "num_tail": found.num_tail if ok else None,
        "fit_status": found.status,
        "estimator": spectrum.options.estimator,
        "num_evals": len(spectrum.evals),
        "alpha_hat": found.alpha * log10(_largest(spectrum.evals)),
        "log_alpha_norm": _log_alpha_norm(spectrum.evals, found.alpha),
    }


def norms(spectrum: Spectrum) -> Mapping[str, Value]:
    """Norms, ranks and entropy. `spectral_norm` is the largest eigenvalue, the square of the largest singular value."""
    evals = spectrum.evals
    total, largest = float(evals.sum()), _largest(spectrum.evals)
    rank = _matrix_rank(spectrum)
    return {
        "log_norm": log10(total),
        "frobenius_norm": math.sqrt(total) if total >= 0 else math.nan,
        "spectral_norm": largest,
        "log_spectral_norm": log10(largest),
        "sigma_max": math.sqrt(largest) if largest >= 0 else math.nan,
        "stable_rank": total / largest if largest > 0 else math.nan,
        "entropy": _entropy(evals, total, rank),
        "matrix_rank": rank,
        "rank_loss": None if rank is None else len(evals) - rank,
    }


def esd(spectrum: Spectrum) -> Mapping[str, Value]:
    """The eigenvalues themselves, ascending: a column of lists, for figures and for fits made elsewhere."""
    return {"evals": spectrum.evals}


def erg(spectrum: Spectrum) -> Mapping[str, Value]:
    """Tail on which det X = 1 ("exact renormalisation group" condition): its size, and its excess over the fit's.

    Where alpha comes from windows (estimator="farms"), it is the excess over the same share of the eigenvalues of W.
    """
    number = _num_erg(spectrum.evals)
    found = fit(spectrum)
    known = number is not None and found.status == "ok"
    tail = round(found.num_tail * len(spectrum.evals) / len(fitted_evals(spectrum))) if known else 0
    return {"num_erg": number, "erg_gap": number - tail if known and number is not None else None}


def alternatives(spectrum: Spectrum) -> Mapping[str, Value]:
    """The power law against lognormal, exponential and truncated power law: see raylab.spectral.alternatives."""
    from raylab.spectral.alternatives import compare  # brings scipy.optimize along, a third of a second

    return compare(spectrum)


def marchenko_pastur(spectrum: Spectrum) -> Mapping[str, Value]:
    """Bulk of the spectrum: soft rank (bulk edge over largest eigenvalue), edge, spikes beyond it."""
    bulk = fit_bulk(spectrum.evals, spectrum.N, spectrum.M)
    return {
        "mp_softrank": bulk.softrank,
        "mp_sigma": bulk.sigma,
        "bulk_edge": bulk.bulk_edge,
        "num_spikes": _spikes(bulk),
        "mp_status": bulk.status,
    }


def randomized(spectrum: Spectrum) -> Mapping[str, Value]:
    """The same layer with its entries permuted, by the seed of the spectrum: what the entries alone account for.

    `num_traps` counts eigenvalues that stick out of the bulk all the same; `rand_distance` is the Jensen-Shannon
    distance of the two spectra taken as distributions; `rand_softrank` the ratio of the largest eigenvalues and
    `rand_maxdist` their difference, the original's less the control's. weightwatcher permutes a second time for the
    last three; here one control serves all.
    """
    control = _permuted_evals(spectrum)
    pooled = np.sort(control.ravel())
    bulk = fit_bulk(pooled, spectrum.N, spectrum.M)
    largest, largest_of_control = _largest(spectrum.evals), _largest(control[0])
    return {
        "rand_lambda_max": _largest(pooled),
        "rand_distance": _jensen_shannon_distance(spectrum.evals, control[0]),
        "rand_softrank": largest_of_control / largest if largest > 0 else math.nan,
        "rand_maxdist": largest - largest_of_control,
        "rand_mp_softrank": bulk.softrank,
        "rand_mp_sigma": bulk.sigma,
        "rand_bulk_edge": bulk.bulk_edge,
        "num_traps": _spikes(bulk),
        "rand_status": bulk.status,
    }


def log10(x: float) -> float:
    """log10, NaN where it has no finite value."""
    return math.log10(x) if 0 < x < math.inf else math.nan


def _largest(evals: Array) -> float:
    return float(evals[-1]) if len(evals) else math.nan


def _spikes(bulk: MarchenkoPasturFit) -> int | None:
    return bulk.num_spikes if bulk.status == "ok" else None


def _log_alpha_norm(evals: Array, alpha: float) -> float:
    """log10 of the sum of lambda^alpha, scaled by the largest so that nothing overflows."""
    if not math.isfinite(alpha) or evals[-1] <= 0:
        return math.nan
    return alpha * log10(float(evals[-1])) + log10(float(np.sum((evals / evals[-1]) ** alpha)))


def _matrix_rank(spectrum: Spectrum) -> int | None:
    singular = np.sqrt(spectrum.evals)
    if not np.isfinite(singular).all():
        return None
    return int(np.count_nonzero(singular > singular.max(initial=0.0) * spectrum.N * MACHINE_EPSILON))


def _entropy(evals: Array, total: float, rank: int | None) -> float:
    """-sum p ln p / ln rank with p = lambda / sum: 1 for a flat spectrum. NaN below rank 2."""
    if rank is None or rank < 2:
        return math.nan
    p = evals / total + EPSILON
    return float(-(p * np.log(p)).sum() / math.log(rank + EPSILON))


def _num_erg(evals: Array) -> int | None:
    """Size of the largest-eigenvalue tail whose product first falls below 1, the spectrum scaled to mean 1.

    The product is summed in logarithms, so it neither over- nor underflows. weightwatcher's scan ends before the
    smallest eigenvalue and then counts all of them.
    """
    if len(evals) < 2 or not np.isfinite(evals).all() or not evals[0] < evals[-1]:
        return None
    with np.errstate(divide="ignore"):
        logs = np.log(evals * (len(evals) / evals.sum()))
    below = np.cumsum(logs[:0:-1]) < 0
    return int(np.argmax(below)) + 1 if below.any() else len(evals)


def _permuted_evals(spectrum: Spectrum) -> Array:
    """Ascending eigenvalues of the layer with permuted entries, (permutations, num_evals)."""
    if spectrum.matrices is None:
        raise ValueError("the permuted control needs the matrices of the spectrum")
    rng = np.random.default_rng(spectrum.seed)
    permutations = PERMUTATIONS_OF_FEW if len(spectrum.evals) < FEW_EVALS else 1
    return np.stack([_permuted_once(spectrum.matrices, spectrum, rng) for _ in range(permutations)])


def _permuted_once(matrices: Array, spectrum: Spectrum, rng: np.random.Generator) -> Array:
    shuffled = matrices.copy()
    for matrix in shuffled.reshape(len(shuffled), -1):
        rng.shuffle(matrix)
    options, layer = spectrum.options, spectrum.layer
    if options.conv == "fft" and layer is not None and is_convolution(layer.kind):
        return np.sort(torus_eigenvalues(shuffled, layer.shape[2:], options.dtype, options.device))
    return np.sort(eigenvalues(shuffled, options.dtype, options.device).ravel())


def _jensen_shannon_distance(a: Array, b: Array) -> float:
    if not (np.isfinite(a).all() and np.isfinite(b).all() and a.sum() > 0 and b.sum() > 0):
        return math.nan
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / middle), 0.0) + np.where(q > 0, q * np.log(q / middle), 0.0)
    return math.sqrt(max(float(terms.sum()) / 2, 0.0))


METRICS: Registry[Metric] = Registry("metric")
for _metric in (standard, power_law, norms, erg, esd, marchenko_pastur, randomized, uncertainty, alternatives):
    METRICS.register(_metric.__name__)(_metric)
