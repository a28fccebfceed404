"""What every test may ask for."""

import contextlib
import os
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):  # a GPU box runs tests/gpu with torch, numpy and pytest alone
    from hypothesis import settings

    settings.register_profile("raylab", derandomize=True, deadline=None)
    settings.load_profile("raylab")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and references: $RAYLAB_SHARED, else ../shared beside the checkout."""
    folder = Path(os.environ.get("RAYLAB_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set RAYLAB_SHARED to the folder that holds data/ and reference/")
    return folder
