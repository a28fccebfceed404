import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # made_up.py


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of 12 models, some rows of which failed."""
    import made_up

    return made_up.folder(tmp_path_factory.mktemp("finished"), models=12)


@pytest.fixture
def sparing(monkeypatch):
    """For tests of what stands around the figures. The pages of test_html and test_spectra are drawn for real."""
    from tests.sparing import render_nothing

    render_nothing(monkeypatch)
