"""What made a row: code, library versions, machine."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("numpy", "scipy", "torch", "torchvision", "transformers", "timm", "pyarrow", "ray", "scikit-learn")


def code_version() -> str:
    """The installed version, with the commit when raylab runs from a git checkout: "0.1.0+1a2b3c4d5e6f.dirty"."""
    release = version("raylab")
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return release
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty=.dirty", "--abbrev=12", "--exclude=*"]
    try:
        commit = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return release
    return f"{release}+{commit}"


def library_versions() -> str:
    """JSON text of the versions of Python and of every library that a number may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return json.dumps(found)
