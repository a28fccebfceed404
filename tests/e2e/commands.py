"""raylab's commands as a person types them, in a process of their own. (In this one: `here`, of conftest.py.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SECONDS = 250  # that a command may take
Ended = tuple[int, str, str]  # exit code, stdout, stderr


def start(folder: Path, module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m MODULE ARGUMENTS` in a folder."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, module: str, *arguments: str, **environment: str) -> Ended:
    """The same, to its end."""
    process = start(folder, module, *arguments, **environment)
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err
