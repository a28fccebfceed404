"""Is the tail a power law, or rather something else?

Likelihood ratios on the fitted tail: Clauset, Shalizi & Newman (SIAM Review 51, 2009), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from raylab.spectral import tail_laws
from raylab.spectral.power_law import fit, fitted_evals
from raylab.spectral.tail_laws import Law
from raylab.types import Array, Spectrum, Value

POWER_LAW = "power_law"


def compare(spectrum: Spectrum) -> Mapping[str, Value]:
    """The power law against lognormal, exponential and truncated power law, on the eigenvalues >= xmin of the fit.

    *_ratio: log-likelihood of the power law less that of the other, in nats, summed over the tail, not normalised:
    positive favours the power law. Every law is at its maximum likelihood on the tail, the power law too. The lognormal
    and the truncated law contain the power law as a limit, so that their ratio is never positive.
    *_p: the probability of a ratio as large, either way, if both laws were as good: Vuong's test, or for the truncated
    law, which nests the power law, chi-squared with one degree of freedom.
    best_law: the law of least AIC, 2 parameters - 2 log-likelihood; the power law where it is as good.
    """
    found = fit(spectrum)
    if found.status != "ok":
        return _values({}, found.status)
    evals = fitted_evals(spectrum)
    return _values(_fitted(np.log(evals[evals >= found.xmin]) - math.log(found.xmin)), "ok")


def vuong(a: Array, b: Array) -> tuple[float, float]:
    """Sum of the differences of two log-likelihoods, point by point, and the probability of one as large if equal."""
    difference = a - b
    ratio, deviation = float(difference.sum()), float(difference.std())
    if ratio == 0 or deviation == 0:
        return ratio, 1.0 if ratio == 0 else 0.0
    return ratio, float(math.erfc(abs(ratio) / (math.sqrt(2 * len(a)) * deviation)))


def nested(inner: Array, outer: Array) -> tuple[float, float]:
    """The same where the first law is a special case of the second, with one parameter fewer (Wilks)."""
    ratio = min(float((inner - outer).sum()), 0.0)
    return ratio, float(math.erfc(math.sqrt(-ratio)))


def _fitted(y_logs: Array) -> dict[str, Law]:
    laws = (tail_laws.power_law, tail_laws.lognormal, tail_laws.exponential, tail_laws.truncated)
    return {law.__name__: law(np.maximum(y_logs, 0.0)) for law in laws}


def _values(laws: Mapping[str, Law], status: str) -> Mapping[str, Value]:
    values: dict[str, Value] = {}
    for name in ("lognormal", "exponential", "truncated"):
        compare = nested if name == "truncated" else vuong
        ratio, p = compare(laws[POWER_LAW].log_density, laws[name].log_density) if laws else (math.nan, math.nan)
        values |= {f"{name}_ratio": ratio, f"{name}_p": p}
    alpha, rate = laws["truncated"].parameters if laws else (math.nan, math.nan)
    best = min(laws, key=lambda name: _aic(laws[name])) if laws else None
    return {
        **values,
        "truncated_alpha": alpha,
        "truncated_rate": rate,
        "best_law": best,
        "alternatives_status": status,
    }


def _aic(law: Law) -> float:
    return 2 * len(law.parameters) - 2 * float(law.log_density.sum())
