"""Operations of torch that keep entries independent: fills, and functions of each entry alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from raylab.models.recording.entry_laws import Constant, Law, affine, clamped, inverse_erf, normal, uniform

Number = Callable[[object], "float | None"]  # an argument as a number, or None
Function = Callable[[Law], "Law | None"]

SIZED = frozenset({"zeros", "ones", "full", "rand", "randn", "normal"})
LIKE = frozenset(f"{name}_like" for name in ("zeros", "ones", "full", "rand", "randn"))
NEW = frozenset({"new_zeros", "new_ones", "new_full"})


def in_place(name: str) -> bool:
    """Whether an operation writes to its first argument."""
    return name.endswith("_")


def fill(name: str, args: Any, kwargs: Mapping[str, Any], number: Number) -> Law | None:
    """The law that an operation fills a tensor with, whatever was there before; None where it does no such thing."""
    if "out" in kwargs or "names" in kwargs:
        return None
    if name in ("normal_", "uniform_"):
        make, default = (normal, (0.0, 1.0)) if name == "normal_" else (uniform, (0.0, 1.0))
        given = zip(("mean", "std") if name == "normal_" else ("from", "to"), default, (1, 2), strict=True)
        a, b = (number(args[k] if k < len(args) else kwargs.get(key, value)) for key, value, k in given)
        return None if a is None or b is None else make(a, b)
    if name == "normal":  # torch.normal(0.0, 1.0, size); with tensors it is another overload
        floats = len(args) > 2 and all(isinstance(value, int | float) for value in args[:2])
        return normal(float(args[0]), float(args[1])) if floats else None
    kind = name.removesuffix("_like").removesuffix("_").removeprefix("new_")
    if kind in ("fill", "full"):
        value = number(args[1] if len(args) > 1 else kwargs.get("value", kwargs.get("fill_value")))
        return None if value is None else Constant(value)
    if name in ("zero_", *SIZED, *LIKE, *NEW):
        known = {"zero": Constant(0.0), "zeros": Constant(0.0), "ones": Constant(1.0)}
        return known.get(kind, normal(0.0, 1.0) if kind == "randn" else uniform(0.0, 1.0))
    return None


def like(name: str, args: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Empty memory for what a filling operation gives back; None where it is not of floats, or not on the CPU."""
    options = {key: kwargs[key] for key in ("dtype", "device", "memory_format") if kwargs.get(key) is not None}
    if name in LIKE:
        return torch.empty_like(args[0], **options)
    if name in NEW:
        return args[0].new_empty(args[1], **options)
    if name not in SIZED or (name == "full" and not isinstance(args[1], float) and "dtype" not in options):
        return None
    return torch.empty(args[2] if name == "normal" else args[0], **options)


def function(name: str, args: Any, kwargs: Mapping[str, Any], number: Number) -> Function | None:
    """What an operation does to the law of each entry of its first argument; None for operations not known."""
    kind = name.removesuffix("_")
    if kind in ("clone", "_to_copy"):
        return lambda law: law
    if kind == "erfinv":
        return inverse_erf
    if kind == "neg":
        return lambda law: affine(law, -1.0, 0.0)
    if kind in ("clamp", "clamp_min", "clamp_max"):
        return _clamp(kind, args, kwargs, number)
    return _affine(kind, args, kwargs, number)


def _affine(kind: str, args: Any, kwargs: Mapping[str, Any], number: Number) -> Function | None:
    """Of operations with one number."""
    if kind not in ("mul", "div", "add", "sub", "rsub") or len(args) < 2 or kwargs.get("rounding_mode"):
        return None
    if isinstance(args[1], Tensor) and args[1].dim() > args[0].dim():  # it would widen the outcome
        return None
    value = number(args[1])
    alpha = number(args[2] if len(args) > 2 else kwargs.get("alpha", 1))
    if value is None or alpha is None or (kind == "div" and value == 0):
        return None
    scale, shift = {
        "mul": (value, 0.0),
        "div": (1 / value if value else math.nan, 0.0),
        "add": (1.0, alpha * value),
        "sub": (1.0, -alpha * value),
        "rsub": (-alpha, value),
    }[kind]
    return lambda law: affine(law, scale, shift)


def _clamp(kind: str, args: Any, kwargs: Mapping[str, Any], number: Number) -> Function | None:
    names = {"clamp": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",)}[kind]
    bounds = {"min": -math.inf, "max": math.inf}
    for k, name in enumerate(names, start=1):
        given = args[k] if k < len(args) else kwargs.get(name)
        if given is None:
            continue
        value = number(given)
        if value is None:
            return None
        bounds[name] = value
    return lambda law: clamped(law, bounds["min"], bounds["max"])
