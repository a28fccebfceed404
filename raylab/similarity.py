"""How far a layer's output moves when the layer is perturbed: metrics that need data, streamed over batches.

Outputs are (samples, units). For images (samples, channels, height, width) every position is a sample and every channel
a unit; for texts (samples, tokens, units) every token is a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from raylab.models.kernels import affine

BLOCK = 128  # rows


@dataclass(frozen=True, slots=True)
class Similarity:
    """The perturbed output against the original's, on the same inputs. NaN where a quantity is not defined."""

    activation_disagreement: float  # fraction of (sample, unit) pairs whose on/off state (output > 0) differs, 0..1
    js_divergence: float  # Jensen-Shannon divergence of the softmaxed outputs, nats, mean over samples, 0..ln 2
    linear_cka: float  # centred linear CKA (Kornblith et al. 2019), 0..1; NaN if an output never varies


class SimilarityMeter:
    """Collects pairs of outputs of one layer, batch by batch."""

    def __init__(self) -> None:
        self._states = 0
        self._differing = 0
        self._samples = 0
        self._js = 0.0
        self._cka = _LinearCKA()

    def update(self, original: Tensor, perturbed: Tensor) -> None:
        """Add a batch: the outputs of the original and of the perturbed layer, of the same shape."""
        if original.shape != perturbed.shape:
            raise ValueError(f"outputs of different shapes: {tuple(original.shape)} and {tuple(perturbed.shape)}")
        a, b = _as_rows(original), _as_rows(perturbed)
        self._states += a.numel()
        self._samples += len(a)
        self._differing += int(((a > 0) != (b > 0)).sum())
        self._js += float(_js_divergence(a, b).sum(dtype=torch.float64))
        self._cka.update(a, b)

    def result(self) -> Similarity:
        """Over everything seen so far. ValueError where that is nothing."""
        if not self._samples:
            raise ValueError("no outputs were compared")
        return Similarity(self._differing / self._states, self._js / self._samples, self._cka.result())


def _as_rows(output: Tensor) -> Tensor:
    """(samples, units) of any output; see the module's first words."""
    if output.dim() == 4:
        output = output.permute(0, 2, 3, 1)
    return output.reshape(-1, output.shape[-1])


def _js_divergence(a: Tensor, b: Tensor) -> Tensor:
    """JS divergence in nats of softmax(a) and softmax(b), a value a row. Log-domain, so that p = 0 is harmless."""
    # A few rows at a time: temporaries of megabytes cost more in page faults than the logarithms do.
    return torch.cat([_js_of_block(x, y) for x, y in zip(a.split(BLOCK), b.split(BLOCK), strict=True)])


def _js_of_block(a: Tensor, b: Tensor) -> Tensor:
    log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
    log_m = torch.logaddexp(log_p, log_q).sub_(math.log(2))
    divergence = log_p.exp().mul_(log_p - log_m).add_(log_q.exp().mul_(log_q - log_m))
    return divergence.sum(-1).clamp_min_(0) / 2  # rounding may leave -1e-9


class _LinearCKA:
    """||B^T A||^2 / (||A^T A|| ||B^T B||) of centred A and B, from sums over batches.

    Everything is shifted by the first batch's mean, so that float32 products do not drown in a large common offset;
    what is left of the mean is taken out at the end. Sums are float32: in float64 they took as long as the products.
    """

    def __init__(self) -> None:
        self._n = 0

    def update(self, a: Tensor, b: Tensor) -> None:
        if not self._n:
            self._shift = a.mean(0), b.mean(0)
            self._sums = [a.new_zeros(a.shape[1]) for _ in range(2)]
            self._products = [a.new_zeros(a.shape[1], a.shape[1]) for _ in range(3)]
        self._n += len(a)
        a, b = a - self._shift[0], b - self._shift[1]
        for total, x in zip(self._sums, (a, b), strict=True):
            total += x.sum(0)
        for total, (x, y) in zip(self._products, ((a, a), (b, b), (b, a)), strict=True):
            total += affine(x.mT, y.mT)

    def result(self) -> float:
        sum_a, sum_b = self._sums
        pairs = ((sum_a, sum_a), (sum_b, sum_b), (sum_b, sum_a))
        aa, bb, ba = (
            float((product - torch.outer(x, y) / self._n).square().sum(dtype=torch.float64))
            for product, (x, y) in zip(self._products, pairs, strict=True)
        )
        return ba / math.sqrt(aa * bb) if aa > 0 and bb > 0 else math.nan
