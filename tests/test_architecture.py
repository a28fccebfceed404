"""The house as the README draws it: who may import whom, and what stays light."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_nothing_points_up():
    linter = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(linter, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("raylab, raylab.types, raylab.results", ("torch", "ray", "cupy", "matplotlib", "hydra")),
        ("raylab.spectral, raylab.layers", ("torch", "ray", "cupy", "hydra", "pyarrow", "matplotlib")),
        ("raylab.models.sources", ("torch", "ray", "timm", "transformers", "huggingface_hub", "pyarrow", "scipy")),
        ("raylab.report", ("torch", "ray", "cupy", "hydra")),
        ("raylab.run, raylab.tune", ("torch", "ray", "cupy", "matplotlib", "torchvision", "timm", "transformers")),
    ],
)
def test_an_import_stays_light(modules, heavy):
    loaded = python(f"import sys, {modules}; print(*sys.modules)").split()
    assert not set(heavy) & set(loaded)


def test_spectra_need_numpy_and_scipy_only():
    """As on a GPU machine without Ray, Hydra, Arrow or rich."""
    blocked = ("ray", "hydra", "omegaconf", "pyarrow", "duckdb", "rich", "sklearn", "torch", "cupy", "weightwatcher")
    code = f"""
import sys
for name in {blocked}: sys.modules[name] = None
import numpy as np
from raylab import spectral
from raylab.types import Layer
weights = np.random.default_rng(0).standard_normal((64, 32))
metrics = spectral.resolve(["standard", "marchenko_pastur", "randomized", "uncertainty", "alternatives"])
print(spectral.measure(weights, Layer("a", 0, "linear", weights.shape), metrics)["alpha"] > 1)
"""
    assert python(code).strip() == "True"


def test_a_network_of_our_own_does_not_wake_torchs_compiler():
    """Which every process would wait for."""
    code = """
import sys, numpy as np
from raylab.models.fcn import FCN
model = FCN(4, 3, 2, 5)
model.load(model.initial_state(np.random.default_rng(0)))
print(type(model.fc1).__name__, "sympy" in sys.modules)
"""
    assert python(code).strip() == "Linear False"


def test_the_readme_draws_the_files_that_are_there():
    tree = re.search(r"```text\n(raylab/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree, "the README has no file tree"
    drawn, folder = set(), ""
    for line in tree[1].splitlines()[1:]:
        indent, name = re.match(r"( *)(\S+)", line).groups()
        if indent and name.endswith("/"):
            folder = name
        elif name.endswith(".py"):
            drawn.add(name if len(indent) == 2 else folder + name)
    there = {str(path.relative_to(ROOT / "raylab")) for path in (ROOT / "raylab").rglob("*.py")}
    assert drawn == {name for name in there if not name.endswith("__init__.py")}


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "raylab" / "py.typed").exists()


SCRIPTS = sorted(
    str(path.relative_to(ROOT / "analysis").with_suffix(""))
    for path in (ROOT / "analysis").rglob("*.py")
    if "publish.script(" in path.read_text()
)


@pytest.fixture
def siblings(monkeypatch):
    """Modules beside a script are found as `python SCRIPT` finds them, and forgotten: other tests import them anew."""
    before = set(sys.modules)
    yield monkeypatch.syspath_prepend
    for name in set(sys.modules) - before:
        if (ROOT / "analysis") in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_analysis_of_a_folder_without_results_is_one_line_and_exit_code_2(
    script, siblings, tmp_path, monkeypatch, capsys
):
    """In this process: sixteen others would spend half a minute on their imports."""
    path = ROOT / "analysis" / f"{script}.py"
    siblings(str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith(f"{Path(script).name}: There is no folder") and err.count("\n") == 1


def test_an_analysis_is_a_script(tmp_path):
    """One of them in a process of its own, beside whose file lie others that it imports."""
    command = [sys.executable, str(ROOT / "analysis" / "fcn_mnist" / "table_1.py"), str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("table_1: There is no folder") and done.stderr.count("\n") == 1
