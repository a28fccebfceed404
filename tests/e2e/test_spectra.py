"""`python -m raylab.run model=FILE` as a person types it."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from raylab.results import load
from tests.cluster import clusters
from tests.e2e import commands

QUICK = ["progress=plain", "report=false"]


def rows(results: Path) -> dict[tuple[str, str], dict]:
    table = load(results).to_pylist()
    found = {
        (row["model"], row["layer"]): {k: repr(v) for k, v in row.items() if k not in clusters.VOLATILE}
        for row in table
    }
    assert len(found) == len(table), "a layer is in the results twice"
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Two small models in a folder."""
    folder = tmp_path_factory.mktemp("lab")
    for name, seed in (("first", 0), ("second", 1)):
        rng = np.random.default_rng(seed)
        state = {f"h.{i}.fc.weight": rng.standard_t(3, size=(80, 60)).astype(np.float32) for i in range(5)}
        save_file(state | {"small.weight": np.ones((4, 4), np.float32)}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def measured(lab) -> str:
    code, out, err = commands.run(lab, "raylab.run", "progress=plain", "model=first.safetensors")
    assert code == 0, err
    return out


def test_a_file_ends_in_rows_and_a_report(lab, measured):
    results = lab / "results" / "spectra" / "first"
    found = rows(results)
    assert len(found) == 6
    assert found["first", "small"]["status"] == "'skipped'" and "min_evals" in found["first", "small"]["error"]
    assert "results/spectra/first/report.html" in measured and "python -m raylab.query" in measured
    assert (results / "report.html").stat().st_size > 10_000
    assert (results / "figures" / "alpha_by_depth.png").exists()


def test_the_same_command_again_runs_nothing(lab, measured, here):
    parts = lab / "results" / "spectra" / "first" / "trials"
    before = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    code, _, err = here(lab, *QUICK, "model=first.safetensors")
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in parts.iterdir()} == before


def test_another_model_may_join_the_first_in_its_folder(lab, measured, here):
    code, _, err = here(lab, "progress=plain", "model=second.safetensors", "results=results/spectra/first")
    assert code == 0, err
    found = rows(lab / "results" / "spectra" / "first")
    assert {model for model, _ in found} == {"first", "second"} and len(found) == 12
    assert (lab / "results" / "spectra" / "first" / "figures" / "compare.png").exists()


def test_another_study_may_not(lab, measured, here):
    code, _, err = here(lab, *QUICK, "model=first.safetensors", "spectral.conv=reshape")
    assert code == 2 and "holds another study (spectral.conv: pooled -> reshape" in err


def test_a_missing_model_is_one_line(lab, here):
    code, _, err = here(lab, *QUICK, "model=frist.safetensors")
    assert code == 2 and "Did you mean 'first.safetensors'" in err and err.count("\n") == 1
