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
    save_file(state | {"head.weight": np.ones((4, 4), np.float32)}, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_a_table_to_read(path, capsys):
    assert main(["analyze", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(path)
    assert lines[2].split()[:6] == ["layer", "kind", "N", "M", "alpha", "+-"]
    alpha = raylab.analyze(path, options=SpectralOptions(device="numpy"))["alpha"][0].as_py()
    assert lines[4].split()[:5] == ["fc0", "linear", "60", "40", f"{alpha:.3f}"]
    assert "head: skipped, 4 eigenvalues are fewer than min_evals=8" in lines
    assert "4 layers: 3 ok, 1 skipped" in lines
    assert not any(line != line.rstrip() for line in lines)


def test_files_hold_what_analyze_gives(path, tmp_path, capsys):
    options = SpectralOptions(device="numpy")
    expected = raylab.analyze(path, ("standard", "marchenko_pastur", "esd"), options).to_pylist()
    command = ["analyze", str(path), "--metrics", "standard,marchenko_pastur,esd", "--option", "device=numpy"]
    assert main([*command, "--output", str(tmp_path / "x.parquet")]) == 0
    assert repr(pq.read_table(tmp_path / "x.parquet").to_pylist()) == repr(expected)
    assert main([*command, "--format", "json", "--output", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())
    assert rows[1]["alpha"] == expected[1]["alpha"] and rows[1]["evals"] == expected[1]["evals"]
    command[command.index("standard,marchenko_pastur,esd")] = "standard,marchenko_pastur"
    assert main([*command, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert float(rows[2]["D"]) == expected[2]["D"] and rows[3]["reason"].startswith("4 eigenvalues")


def test_options_and_patterns(path, capsys):
    arguments = ["--layers", "fc0,fc1", "--metrics", "norms", "--option", "min_evals=none", "--option", "dtype=float32"]
    assert main(["analyze", str(path), *arguments]) == 0
    out = capsys.readouterr().out
    table = out.partition("+-:")[0]
    assert "fc1" in table and "fc2" not in table and "alpha" not in table


def test_a_layer_without_a_fit_is_exit_code_1(tmp_path, capsys):
    save_file({"dead.weight": np.zeros((20, 30), np.float32)}, tmp_path / "d.safetensors")
    assert main(["analyze", str(tmp_path / "d.safetensors")]) == 1
    assert "fewer than two eigenvalues" in capsys.readouterr().out


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
        (["--output", "x.xlsx"], "the ending must be"),
        (["--metrics", "esd", "--format", "csv"], "use --format json"),
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


def test_a_metric_of_ones_own_from_the_working_directory_is_shown(path, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_lab.py").write_text("def spread(spectrum):\n    return spectrum.evals[-1] - spectrum.evals[0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["analyze", str(path), "--metrics", "norms,own_lab:spread"]) == 0
    assert "spread" in capsys.readouterr().out.splitlines()[2]


def test_a_narrow_terminal_gets_blocks_that_repeat_the_layer():
    rows = [{"layer": f"fc{i}", "status": "ok", "reason": None, "alpha": 2.0 + i, "log_norm": 1.0} for i in range(3)]
    wide, narrow = (terminal.table_text(rows, "net", {}, width).splitlines() for width in (None, 16))
    assert sum(line.startswith("layer") for line in wide) == 1
    assert [line.split() for line in narrow if line.startswith("layer")] == [["layer", "alpha"], ["layer", "log_norm"]]


def test_a_reader_that_goes_away_is_no_error(path):
    script = f"import sys; from raylab.__main__ import main; sys.exit(main(['analyze', {str(path)!r}]))"
    command = f'({sys.executable} -c "{script}"; echo $? >&2) | true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == "0\n"


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--help"], 0), (["analize", "x"], 2)])
def test_the_script_says_what_it_can(arguments, code, capsys):
    assert main(arguments) == code
    said = capsys.readouterr()
    assert ("Did you mean 'analyze'" in said.err) if code else ("raylab query RESULTS SQL" in said.out)
