"""Host memory of a whole run: driver, workers, eigensolvers, object store.

python -m benchmarks.sweep_memory [KEY=VALUE ...]

Runs `python -m raylab.run` with these overrides; by default GPT-2-large at real size with random weights, over few
windows and layers, the embedding (the largest tensor) among them. Every second adds up the proportional set size (PSS)
of all its processes, in which shared memory counts once, and prints the most and whose it was. The activations of the
whole test split, which few windows do not fill, are added in words.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GB = 1024**3
DEFAULT = [
    "experiment=gpt2_large",
    "model.pretrained=false",
    "data.tokens=4096",
    "batch_size=1",
    "draws=2",
    "layers=[transformer.wte,transformer.h.0.attn.c_attn,transformer.h.17.mlp.c_fc,transformer.h.35.mlp.c_proj]",
]


def family(root: int) -> list[int]:
    """The process and all that it has started, Ray's daemons included."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [root]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def pss(process: int) -> int:
    """Bytes of a process, shared ones divided among those who share them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def title(process: int) -> str:
    """What a process calls itself: Ray's workers say what they are at."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone"
    words = [Path(word.decode()).name for word in command if word and not word.startswith(b"-")]
    return " ".join(words[:2])[:60]


def main(overrides: list[str]) -> None:
    folder = tempfile.mkdtemp()
    command = [sys.executable, "-m", "raylab.run", *(overrides or DEFAULT), f"results={folder}/run", "progress=plain"]
    most: dict[int, int] = {}
    titles: dict[int, str] = {}
    start = time.perf_counter()
    try:
        with subprocess.Popen(command) as running:
            while running.poll() is None:
                sizes = {process: pss(process) for process in family(running.pid)}
                if sum(sizes.values()) > sum(most.values()):
                    most, titles = sizes, {process: title(process) for process in sizes}
                time.sleep(1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{time.perf_counter() - start:.0f} s, exit code {running.returncode}")
    print(f"{sum(most.values()) / GB:.1f} GiB at most, of which")
    for process in sorted(most, key=lambda process: -most[process])[:6]:
        print(f"  {most[process] / GB:5.1f} GiB  {titles[process]}")
    print("To be added for the whole test split: the activations, at most activations.host_gb (3 GB) a worker.")


if __name__ == "__main__":
    main(sys.argv[1:])
