import sys
from pathlib import Path

import pytest

from raylab.report.picture import Picture

sys.path.insert(0, str(Path(__file__).parents[1]))  # made_up.py


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of 12 models, some rows of which failed."""
    import made_up

    return made_up.folder(tmp_path_factory.mktemp("finished"), models=12)


@pytest.fixture
def sparing(monkeypatch):
    """Every panel is filled, for an error in it shows then; but none is rendered, which takes most of a report's time.

    For tests of what stands around the figures. The pages of test_html and test_spectra are drawn for real.
    """
    from matplotlib.figure import Figure

    def inline(picture):
        for panel in picture.panels:
            panel.fill(Figure().subplots())
        return [f'<svg id="{picture.name}-{at}-"></svg>' for at in range(len(picture.panels))]

    def save(picture, folder):
        folder.mkdir(parents=True, exist_ok=True)
        made = [folder / f"{picture.name}.{kind}" for kind in ("png", "svg")]
        for path in made:
            path.touch()
        return made

    monkeypatch.setattr(Picture, "inline", inline)
    monkeypatch.setattr(Picture, "save", save)
