"""How much memory does a model need that is measured from its file? A few times its largest tensor is the aim.

    OMP_NUM_THREADS=1 python -m benchmarks.streaming_memory [--gigabytes 1] [--rows 8192] [--columns 1024] [--folder F]

Writes a sharded bfloat16 model of random numbers into a temporary folder and deletes it again. A fresh process each
walks all tensors, takes the digest, and calls raylab.analyze on one layer, ten and all; what it needs beyond its
imports is the peak of its anonymous memory (RssAnon of /proc, sampled every millisecond: pages of files that the
system may drop at any time do not count). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from raylab.models.sources import open_model
from raylab.types import SpectralOptions

OPTIONS = SpectralOptions(device="cpu", dtype="float32")
SHARD_BYTES = 1 << 30


def anonymous() -> int:
    """Bytes of this process's own memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def peak_of(work: Callable[[], object]) -> int:
    """The most memory that a call needs beyond what was there."""
    before, highest, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(highest, anonymous()) - before


def write(folder: Path, total: int, rows: int, columns: int) -> None:
    """Shards of equal bfloat16 layers, header and bytes by hand, so that writing needs no memory either."""
    rng = np.random.default_rng(0)
    size = 2 * rows * columns
    count, per_shard = max(total // size, 1), max(SHARD_BYTES // size, 1)
    weight_map = {}
    for shard, start in enumerate(range(0, count, per_shard)):
        names = [f"layers.{i}.weight" for i in range(start, min(start + per_shard, count))]
        header = {
            name: {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [k * size, (k + 1) * size]}
            for k, name in enumerate(names)
        }
        text = json.dumps(header).encode()
        path = folder / f"model-{shard:05}.safetensors"
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _ in names:
                numbers = rng.standard_normal((rows, columns), dtype=np.float32)
                file.write((numbers.view(np.uint32) >> 16).astype(np.uint16).data)
        weight_map |= dict.fromkeys(names, path.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def walk(folder: Path) -> None:
    for tensor in open_model(folder).model.values():
        np.asarray(tensor)


def analyze(folder: Path, layers: str) -> None:
    import raylab

    raylab.analyze(open_model(folder).model, ("norms",), OPTIONS, layers=(layers,))


TASKS: dict[str, Callable[[Path], object]] = {
    "walk": walk,
    "digest": lambda folder: open_model(folder).digest,
    "analyze one layer": lambda folder: analyze(folder, "layers.0"),
    "analyze ten layers": lambda folder: analyze(folder, "layers.[0-9]"),
    "analyze all layers": lambda folder: analyze(folder, "*"),
}


def measured(task: str, folder: Path) -> int:
    """Peak bytes of one task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.streaming_memory", "--task", task, "--folder", str(folder)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def warm_up() -> None:
    """Imports and the first call of every solver, whose memory is not the model's."""
    import torch  # large matrices are solved by the LAPACK that it brings

    import raylab

    torch.linalg.eigvalsh(torch.eye(32))
    raylab.analyze({"w": np.eye(32, 48, dtype=np.float32)}, ("norms",), OPTIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        warm_up()
        print(peak_of(lambda: TASKS[arguments.task](arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write(folder, int(arguments.gigabytes * 1e9), arguments.rows, arguments.columns)
        size = sum(path.stat().st_size for path in folder.iterdir())
        largest = 4 * arguments.rows * arguments.columns
        shape = f"{arguments.rows} x {arguments.columns}"
        print(f"{size / 1e9:.1f} GB of bfloat16 in shards; largest tensor {shape}, {largest / 1e6:.0f} MB in float32\n")
        print("| what | peak memory, MB | times the largest tensor in float32 |")
        print("|---|---:|---:|")
        for task in TASKS:
            peak = measured(task, folder)
            print(f"| {task} | {peak / 1e6:.0f} | {peak / largest:.2f} |", flush=True)


if __name__ == "__main__":
    main()
