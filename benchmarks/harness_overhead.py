"""What the harness costs: the whole command against the same work without scheduling, rows, summary or report.

    python -m benchmarks.harness_overhead --models 4,8 experiment=fcn_mnist data.root=FOLDER

The floor: one plain process a core, each doing its share of the models one after the other, nothing written. The
command: `python -m raylab.run` with as many workers, from nothing to the report. Wall seconds, in turn, on a quiet
machine. The command's fixed part (Ray, report) does not grow with the number of models, so that a longer run has a
smaller share; two sizes separate the two.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SHARE = """
import sys
from raylab import config, experiments
models, share, shares, *overrides = sys.argv[1:]
experiment = experiments.build(config.compose([*overrides, f"models={models}"])[0])
mine = [trial for trial in experiment.trials() if trial.replicate % int(shares) == int(share)]
for group in experiment.groups(mine):
    for outcome in experiment.run(group):
        experiment.measure([outcome])
"""


def timed(commands: list[list[str]], environment: dict[str, str]) -> float:
    """Wall seconds of commands run side by side. Raises where one fails."""
    start = time.perf_counter()
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
    for process in processes:
        if process.wait():
            raise SystemExit(f"failed: {process.args}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="4,8", help="numbers of models, as 4,8")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    print("| models | floor, s | command, s | harness |\n|---:|---:|---:|---:|")
    for models in map(int, options.models.split(",")):
        scratch = Path(tempfile.mkdtemp())
        overrides = [*options.overrides, f"results={scratch}"]
        shares = [
            [sys.executable, "-c", SHARE, str(models), str(share), str(options.workers), *overrides]
            for share in range(options.workers)
        ]
        floor = timed(shares, os.environ | ONE_THREAD)
        shutil.rmtree(scratch)
        command = [sys.executable, "-m", "raylab.run", *overrides, f"models={models}", "progress=none"]
        whole = timed([[*command, f"cluster.workers={options.workers}"]], dict(os.environ))
        shutil.rmtree(scratch)
        print(f"| {models} | {floor:.1f} | {whole:.1f} | {1 - floor / whole:.1%} |", flush=True)


if __name__ == "__main__":
    main()
