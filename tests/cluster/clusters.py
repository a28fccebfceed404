"""`ray up` as a person types it, with the files that ship, between machines that are made here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import yaml

from raylab.errors import UserError
from raylab.results import load
from tests.cluster.machines import HOME, Machine, Network

ROOT = Path(__file__).resolve().parents[2]
TINY = ["experiment=digits", "debug=tiny", "models=6", "progress=plain"]
VOLATILE = {"seconds", "train_seconds", "started_at", "finished_at", "host", "config", "code", "versions"}

# Three machines on two cores start slowly, and answer slowly: that is no reason to think them dead.
PATIENT = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_health_check_timeout_ms": "20000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # after which a worker ends without its head
}

# What an image of a machine has: everything is installed, and `uv sync` only has to say so. (That the real one takes
# these words is another test.)
UV = """\
#!/bin/bash
echo "$PWD: uv $*" >> ~/uv.log
ln -sfn {venv} .venv
"""
BASHRC = """\
export PYTHONPATH={home}/raylab
"""


def installed(machine: Machine, **environment: str) -> Machine:
    """The machine with all that its set-up would fetch from the network. environment: of every process on it."""
    home = machine.own / "tmp/home"
    (home / ".local/bin").mkdir(parents=True)
    (home / ".local/bin/uv").write_text(UV.format(venv=sys.prefix))
    (home / ".local/bin/uv").chmod(0o755)
    lines = [f"export {key}={value}\n" for key, value in environment.items()]
    with (home / ".bashrc").open("a") as file:
        file.write(BASHRC.format(home=HOME) + "".join(lines))
    return machine


def laptop(network: Network) -> Machine:
    """Whence a cluster is started: it has the token, and the checkout that is mounted."""
    machine = network.up()
    machine.exec("ray", "get-auth-token", "--generate")
    checkout = machine.own / "tmp/home/checkout"
    checkout.mkdir()
    for name in ("raylab", "conf", "tests", "pyproject.toml", "README.md", "LICENSE", "cluster.yaml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, checkout / name)
    (checkout / "uv.lock").write_text("# the lock travels with the checkout, although git does not know it\n")
    return machine


def write(machine: Machine, name: str, cluster: dict) -> None:
    """Put a cluster's file into the checkout of a laptop."""
    (machine.own / "tmp/home/checkout" / name).write_text(yaml.safe_dump(cluster, sort_keys=False))


def rows(folder: Path | str) -> dict[str, dict]:
    """Every row by trial, without what may differ between two runs of the same work."""
    table = load(folder).to_pylist()
    found = {row["trial_id"]: {k: repr(v) for k, v in row.items() if k not in VOLATILE} for row in table}
    assert len(found) == len(table), "a trial is in the results twice"
    return found


def hosts(folder: Path | str) -> set[str]:
    """The machines that rows are from, so far."""
    try:
        return set(load(folder, ["host"])["host"].to_pylist())
    except UserError:  # none yet
        return set()


def undisturbed(folder: Path, *words: str) -> dict[str, dict]:
    """The rows of the same run in one process."""
    command = [sys.executable, "-m", "raylab.run", *TINY, *words, "cluster=inline", f"results={folder}"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=200)
    return rows(folder)


def until_it_ends(process: subprocess.Popen[str], meanwhile: Callable[[], object], timeout: float = 600) -> str:
    """What a command prints. meanwhile: called a few times a second. Raises AssertionError where the command fails."""
    deadline, said = time.monotonic() + timeout, b""
    with process:
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
            meanwhile()
            time.sleep(0.3)
            with suppress(BlockingIOError):
                said += os.read(process.stdout.fileno(), 2**20)
    assert process.returncode == 0, said.decode()
    return said.decode()


def wait_for(what: str, condition, timeout: float) -> None:
    """Look every half second whether something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout} s still no {what}"
        time.sleep(0.5)
