"""The shipped configuration on disk."""

from __future__ import annotations

from pathlib import Path

from raylab.errors import UserError

RAY_UP = "ray_up"  # of conf/: files for `ray up`, which are no choice of a command


def conf_dir() -> Path:
    """The folder of the shipped configuration: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError("raylab's conf/ folder is missing from this installation: install raylab again.")


def groups() -> dict[str, list[str]]:
    """The groups of conf/ and what each offers."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir() and path.name != RAY_UP)
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def about(group: str, name: str) -> str:
    """What a file of conf/ says of itself in its last comment line."""
    lines = (conf_dir() / group / f"{name}.yaml").read_text().splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line]
    return comments[-1] if comments else ""
