"""What every test may ask for."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

# Read when Ray is imported, which a test may do before raylab's preflight says the same: under `uv run pytest` each
# start of a worker would rebuild an environment, for half a minute.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# Read when numpy or torch is imported: pools of threads beside pytest's processes would spin more than they work.
for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(library, "1")

# Ignored by what a script starts in the background, and by all that it starts: no test could press Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session")
def _cloud():
    pytest.importorskip("moto")
    from tests.cloud import Cloud

    with Cloud() as running:
        yield running


@pytest.fixture
def cloud(_cloud, monkeypatch):
    """moto's S3 on a port of its own, which boto3 finds by the environment; nothing is wrong with it at first."""
    for name, value in _cloud.environment.items():
        monkeypatch.setenv(name, value)
    _cloud.disturb()
    yield _cloud
    _cloud.disturb()
