"""Windows of one aspect ratio, so that alpha does not depend on the shape of W.

FARMS: "Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias" (Hu, Goel, Killiakov & Yang, ICML 2025). A
matrix is cut into overlapping windows of equal shape, spread evenly over it, and the eigenvalues of all windows are
pooled, neither scaled nor thinned. The places of the windows are those of the authors' code (`fixed_sampling` of
github.com/HUST-AI-HYZ/FARMS, and `matrix_size_dependent_sampling` for a given step). It differs in two cases:

- W is smaller than a window: theirs loses the aspect ratio, or wraps around. Here the window shrinks and keeps it.
- Convolutions: theirs averages alpha over windows side by side, each as wide as a slice, pooled over the slices. Here
  a convolution is treated as every layer is, with the windows of all its matrices pooled.
"""

from __future__ import annotations

import numpy as np

from raylab.errors import UserError
from raylab.spectral.backend import eigenvalues
from raylab.types import Array, SpectralOptions


def window_evals(matrices: Array, options: SpectralOptions) -> Array:
    """The ascending eigenvalues of all windows of a stack of matrices (count, rows, columns), pooled.

    A window has its rows along those of W as the model stores it. Raises UserError for impossible farms_* options.
    """
    check_windows(options)
    _, rows, columns = matrices.shape
    height, width = window_shape(rows, columns, options)
    tops, lefts = window_places(rows, height, options), window_places(columns, width, options)
    evals = [
        eigenvalues(_windows(matrices[:, top : top + height], lefts, width), options.dtype, options.device)
        for top in tops  # a row of windows at a time: together they may be many times as large as W
    ]
    return np.sort(np.concatenate(evals, axis=None))


def window_shape(rows: int, columns: int, options: SpectralOptions) -> tuple[int, int]:
    """Rows and columns of a window in a matrix of that shape."""
    height = min(options.farms_rows, rows, int(columns / options.farms_aspect))
    return max(height, min(rows, 1)), min(max(int(height * options.farms_aspect), 1), columns)


def window_places(length: int, size: int, options: SpectralOptions) -> list[int]:
    """Where the windows of that size begin along a side of that length."""
    room = length - size
    if options.farms_step:
        return list(range(0, room + 1, options.farms_step))
    step = max(room // (options.farms_places - 1), 1) if options.farms_places > 1 else room + 1
    return list(range(0, room + 1, step))[: options.farms_places]


def check_windows(options: SpectralOptions) -> None:
    """Raise UserError for windows that cannot be."""
    if options.farms_rows < 1 or options.farms_places < 1 or options.farms_step < 0 or not options.farms_aspect > 0:
        raise UserError("farms_rows, farms_places and farms_aspect must be positive, farms_step zero or more.")
    if options.estimator == "farms" and options.conv == "fft":
        raise UserError("estimator=farms cuts windows out of weights, not of their Fourier transform: use conv=pooled.")


def _windows(band: Array, lefts: list[int], width: int) -> Array:
    """The windows of a band (count, height, columns) at some places, (count * places, height, width)."""
    return np.concatenate([band[:, :, left : left + width] for left in lefts])
