"""The types of stored numbers, and how those that numpy lacks become numpy's: exactly, never through half precision."""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass

import numpy as np

from raylab.types import Array

PIECE = 1 << 20  # elements


@dataclass(frozen=True, slots=True)
class StoredType:
    """The type of a tensor's elements as a file stores them. `name` is spelt as numpy and torch spell it."""

    name: str  # "float32", "bfloat16", "float8_e4m3fn"
    bits: int  # of one element
    raw: str | None  # numpy's code for the bytes, little-endian; None where raylab reads no elements


# By the code of the safetensors format. The last three are packed or scales without a mantissa: no weights by
# themselves, so that their names do not begin with "float" and they are listed as skipped.
STORED_TYPES = {
    "F64": StoredType("float64", 64, "<f8"),
    "F32": StoredType("float32", 32, "<f4"),
    "F16": StoredType("float16", 16, "<f2"),
    "BF16": StoredType("bfloat16", 16, "<u2"),
    "F8_E4M3": StoredType("float8_e4m3fn", 8, "u1"),
    "F8_E5M2": StoredType("float8_e5m2", 8, "u1"),
    "I64": StoredType("int64", 64, "<i8"),
    "I32": StoredType("int32", 32, "<i4"),
    "I16": StoredType("int16", 16, "<i2"),
    "I8": StoredType("int8", 8, "i1"),
    "U64": StoredType("uint64", 64, "<u8"),
    "U32": StoredType("uint32", 32, "<u4"),
    "U16": StoredType("uint16", 16, "<u2"),
    "U8": StoredType("uint8", 8, "u1"),
    "BOOL": StoredType("bool", 8, "?"),
    "C64": StoredType("complex64", 64, "<c8"),
    "F8_E8M0": StoredType("e8m0 scale", 8, None),
    "F6_E2M3": StoredType("packed e2m3", 6, None),
    "F6_E3M2": StoredType("packed e3m2", 6, None),
    "F4": StoredType("packed e2m1", 4, None),
}


def widened(raw: Array, stored: StoredType) -> Array:
    """Stored elements as numbers of numpy: bfloat16 and the 8-bit floats as float32, all others as they are."""
    if stored.name == "bfloat16":
        wide = raw.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if stored.name.startswith("float8"):
        return _looked_up(raw, eight_bit_values(stored.name))
    return raw if sys.byteorder == "little" else raw.astype(raw.dtype.newbyteorder("="))


def _looked_up(raw: Array, table: Array) -> Array:
    """table[raw], in pieces: numpy makes 8-byte indices of the 1-byte elements."""
    wide = np.empty(raw.shape, table.dtype)
    flat, source = wide.reshape(-1), raw.reshape(-1)
    for start in range(0, len(source), PIECE):
        flat[start : start + PIECE] = table[source[start : start + PIECE]]
    return wide


@functools.cache
def eight_bit_values(name: str) -> Array:
    """The 256 values of "float8_e4m3fn" or "float8_e5m2" (Micikevicius et al. 2022), float32, by their bits."""
    mantissa_bits = {"float8_e4m3fn": 3, "float8_e5m2": 2}[name]
    values = np.array([_eight_bit_value(bits, mantissa_bits) for bits in range(256)], np.float32)
    values.flags.writeable = False  # it is shared
    return values


def _eight_bit_value(bits: int, mantissa_bits: int) -> float:
    bias = (1 << (6 - mantissa_bits)) - 1
    sign = -1.0 if bits & 0x80 else 1.0
    exponent, mantissa = (bits & 0x7F) >> mantissa_bits, bits & ((1 << mantissa_bits) - 1)
    if mantissa_bits == 3 and bits & 0x7F == 0x7F:  # e4m3fn has no infinity, and one NaN of either sign
        return math.nan
    if mantissa_bits == 2 and exponent == 31:
        return math.nan if mantissa else sign * math.inf
    implicit = 1 << mantissa_bits if exponent else 0
    return sign * math.ldexp(implicit + mantissa, max(exponent, 1) - bias - mantissa_bits)
