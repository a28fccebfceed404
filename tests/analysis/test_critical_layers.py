"""Which layers are critical, from made-up results folders."""

import runpy
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raylab.errors import UserError
from raylab.report.picture import Picture
from raylab.results import load
from tests import made_up

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "analysis" / "critical_layers.py"))
MODELS = 3


@pytest.fixture
def results(tmp_path):
    return made_up.folder(tmp_path / "one", MODELS)


def test_what_is_left_by_each_layer_is_a_mean_over_models(results, tmp_path, monkeypatch):
    monkeypatch.setattr(Picture, "save", lambda picture, folder: [])
    made = [path.name for path in SCRIPT["main"]([str(results)], tmp_path / "out")]
    assert len(made) == 6
    layers = pq.read_table(tmp_path / "out" / "critical_layers.parquet").to_pandas()
    rows = load(results).to_pandas().query("status == 'ok' and layer == 'fc3' and perturbation == 'reinit'")
    cost = layers.query("layer == 'fc3' and perturbation == 'reinit'").iloc[0]
    assert cost.left == pytest.approx(100 * rows.groupby("replicate").accuracy.mean().mean())
    assert cost.cost == pytest.approx(cost.baseline - cost.left) and cost.models == MODELS


def test_one_model_in_two_folders_is_refused(results, tmp_path):
    other = shutil.copytree(results, tmp_path / "two")
    with pytest.raises(UserError, match=r"is in .*one and in .*two: give the folders of one recipe at a time"):
        list(SCRIPT["main"]([str(results), str(other)], tmp_path / "out"))
