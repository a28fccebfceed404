"""`raylab analyze MODEL`."""

import csv
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import raylab
from raylab import terminal
from raylab.__main__ import main
from raylab.types import SpectralOptions


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    state = {f"fc{i}.weight": rng.standard_t(3, size=(60, 40)).astype(np.float32) for i in range(3)}
    save_file(state | {"small.weight": np.ones((4, 4), np.float32)}, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_a_table_to_read(path, capsys):
    assert main(["analyze", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(path)
    assert lines[2].split()[:6] == ["layer", "kind", "N", "M", "alpha", "+-"]
    alpha = raylab.analyze(path, options=SpectralOptions(device="numpy"))["alpha"][0].as_py()
    assert lines[4].split()[:5] == ["fc0", "linear", "60", "40", f"{alpha:.3f}"]
    assert lines[7].endswith("4 eigenvalues are fewer than min_evals=8")
    assert lines[9] == "4 layers: 3 ok, 1 skipped"
    assert not any(line != line.rstrip() for line in lines)


def test_files_hold_what_analyze_gives(path, tmp_path, capsys):
    options = SpectralOptions(device="numpy")
    expected = raylab.analyze(path, ("standard", "marchenko_pastur", "esd"), options).to_pylist()
    command = ["analyze", str(path), "--metrics", "standard,marchenko_pastur,esd", "--option", "device=numpy"]
    assert main([*command, "--format", "parquet", "--output", str(tmp_path / "x.parquet")]) == 0
    assert repr(pq.read_table(tmp_path / "x.parquet").to_pylist()) == repr(expected)
    assert main([*command, "--format", "json", "--output", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())
    assert rows[1]["alpha"] == expected[1]["alpha"] and rows[1]["evals"] == expected[1]["evals"]
    assert main([*command, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert float(rows[2]["D"]) == expected[2]["D"] and rows[3]["reason"].startswith("4 eigenvalues")


def test_options_and_patterns(path, capsys):
    arguments = ["--layers", "fc0,fc1", "--metrics", "norms", "--option", "min_evals=none", "--option", "dtype=float32"]
    assert main(["analyze", str(path), *arguments]) == 0
    out = capsys.readouterr().out
    assert "fc1" in out and "fc2" not in out and "alpha" not in out


def test_a_layer_without_a_fit_is_exit_code_1(tmp_path, capsys):
    save_file({"dead.weight": np.zeros((20, 30), np.float32)}, tmp_path / "d.safetensors")
    assert main(["analyze", str(tmp_path / "d.safetensors")]) == 1
    assert "no power law: too_few" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--option", "dtype=float23"], "Unknown dtype"),
        (["--option", "dtyp=float32"], "Did you mean 'dtype'"),
        (["--option", "split=perhaps"], "split=perhaps: true or false is needed"),
        (["--option", "min_evals=many"], "min_evals=many: a whole number or none is needed"),
        (["--option", "max_evals=many"], "max_evals=many: a whole number or none is needed"),
        (["--option", "threshold=none"], "threshold=none: a number is needed"),
        (["--option", "farms_places=none"], "farms_places=none: a whole number is needed"),
        (["--option", "estimator=none"], "Unknown estimator 'none'"),
        (["--option", "__class__=3"], "Unknown option '__class__=3'"),
        (["--option", "estimator=farms", "--option", "conv=fft"], "estimator=farms cuts windows out of weights"),
        (["--threads", "-1"], "threads=-1 must be at least 1"),
        (["--metrics", "standrad"], "Did you mean 'standard'"),
        (["--layers", "conv*"], "matches no layer"),
        (["--format", "parquet"], "needs --output"),
        (["--output", "/no/such/folder/x.txt"], "Choose another --output"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(path, arguments, message, capsys):
    assert main(["analyze", str(path), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out


def test_a_safetensors_file_needs_neither_torch_nor_much_else(path):
    code = f"""
import sys
from raylab.__main__ import main
assert main(["analyze", {str(path)!r}]) == 0
from raylab.spectral.backend import _driver_present
heavy = {{"torch", "ray", "hydra", "pyarrow", "numba", "scipy.linalg", "scipy.optimize", "matplotlib", "rich"}}
assert _driver_present() or not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_much_work_is_done_with_numba(path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        terminal, "rows_of", lambda model, metrics, options, *_: seen.append(options.device) or ([], {})
    )
    monkeypatch.setattr(terminal, "_write", lambda *_: None)
    main(["analyze", str(path)])
    monkeypatch.setattr(terminal, "LITTLE_WORK", 1)
    main(["analyze", str(path)])
    assert seen == ["numpy", "auto"]
