"""Raylab: data-free (spectral, heavy-tailed) metrics of neural networks, distributed and put to the test."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylab import plot
    from raylab.analyzer import analyze

__version__ = "0.1.0"
__all__ = ["analyze", "plot"]


def __getattr__(name: str) -> Any:
    """Load on first use: importing raylab costs nothing that is not asked for."""
    import importlib

    if name == "analyze":
        return importlib.import_module("raylab.analyzer").analyze
    if name == "plot":
        return importlib.import_module("raylab.plot")
    raise AttributeError(f"module 'raylab' has no attribute '{name}'")
