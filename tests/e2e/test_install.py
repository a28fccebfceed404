"""conf/ and the report's template are found from a wheel as from a checkout."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("uv"), reason="no uv: pip install uv")]


def call(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def console_script(tmp_path_factory) -> Path:
    """`raylab` of an environment that holds the wheel, and borrows everything else from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    call("uv", "build", "--quiet", "--wheel", "--out-dir", folder, cwd=ROOT)
    call("uv", "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    call("uv", "pip", "install", "--quiet", "--no-deps", "--python", python, wheel, cwd=folder)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    assert (site / "raylab" / "conf" / "config.yaml").is_file()
    # Appended after the wheel's own folder, so that raylab is the wheel's.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv" / "bin" / "raylab"


def test_the_console_script_of_a_wheel_runs_the_main_job(console_script, tmp_path):
    assert "fcn_mnist" in call(console_script, "run", "--help", cwd=tmp_path)
    out = call(console_script, "debug=tiny", "results=out", cwd=tmp_path)
    assert "out/report.html" in out
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    code = "import raylab, sys; print(raylab.__file__)"
    used = call(console_script.parent / "python", "-c", code, cwd=tmp_path)
    assert str(console_script.parent.parent) in used, "the checkout was used, not the wheel: the test shows nothing"
