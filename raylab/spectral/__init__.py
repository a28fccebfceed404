"""Data-free metrics of a layer: weights -> spectrum -> numbers.

Needs numpy and scipy; torch and CuPy are used where they are present and help. `resolve` names into metrics, ask
`columns` what they give, `measure` layers.
"""

from raylab.spectral.esd import slice_spectra, spectra, spectrum
from raylab.spectral.measure import (
    METRICS_VERSION,
    batches,
    columns,
    gram_cost,
    measure,
    measure_many,
    measure_spectrum,
    resolve,
    threads_of,
    version,
    why_failed,
)
from raylab.spectral.metrics import METRICS
from raylab.spectral.power_law import fit, fit_evals

__all__ = [
    "METRICS",
    "METRICS_VERSION",
    "batches",
    "columns",
    "fit",
    "fit_evals",
    "gram_cost",
    "measure",
    "measure_many",
    "measure_spectrum",
    "resolve",
    "slice_spectra",
    "spectra",
    "spectrum",
    "threads_of",
    "version",
    "why_failed",
]
