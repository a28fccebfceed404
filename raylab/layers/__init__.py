"""Which tensors of a model are layers, and which matrices a layer stands for.

Every tensor of two or more dimensions is either a layer that is measured, or listed as skipped with the reason,
because a silent gap in a table of layers is worse than a visible one. Nothing here imports torch: a module is
recognised by its methods, a layer by the name of its class or, in a mapping, by its own name and shape.
"""

from raylab.layers.find import Skipped, find_layers, measurable, select, split_by_size, weights, why_too_large_or_small
from raylab.layers.kinds import is_convolution, why_without_values
from raylab.layers.matrices import (
    CONV_TREATMENTS,
    GROUP_TREATMENTS,
    as_matrices,
    check_treatments,
    half_spectrum,
    has_matrices,
    kernel_slices,
    matrices_shape,
    size_columns,
    to_numpy,
)
from raylab.layers.parameters import LayerParameters, Part, bias_beside, parameters_of

__all__ = [
    "CONV_TREATMENTS",
    "GROUP_TREATMENTS",
    "LayerParameters",
    "Part",
    "Skipped",
    "as_matrices",
    "bias_beside",
    "check_treatments",
    "find_layers",
    "half_spectrum",
    "has_matrices",
    "is_convolution",
    "kernel_slices",
    "matrices_shape",
    "measurable",
    "parameters_of",
    "select",
    "size_columns",
    "split_by_size",
    "to_numpy",
    "weights",
    "why_too_large_or_small",
    "why_without_values",
]
