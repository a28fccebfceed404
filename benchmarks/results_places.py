"""What it costs to commit rows: to a local folder, and to S3 (moto's server, in a process of its own).

    python -m benchmarks.results_places [--rows 20000] [--folder FOLDER]

Rows are those of the main experiment, written one by one through ParquetSink, committed every so many rows. CPU seconds
of this process beside wall seconds: they hardly depend on what else the machine does. moto runs in Python on the same
machine: a commit to it says what the harness asks for, not how fast S3 is. Opening reads every page of every part
again, as a run that goes on does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

SERVER = """
import sys, time
from tests.cloud import Cloud
with Cloud() as cloud:
    print(cloud.environment["AWS_ENDPOINT_URL"], flush=True)
    sys.stdin.read()
"""


def commit(where: str, rows: int, flush: int) -> tuple[float, float, float]:
    """Wall and CPU seconds of writing, and CPU seconds of opening again."""
    from raylab.results import ParquetSink, schema
    from tests import made_up

    plan = made_up.trials(1 + rows // 25)[:rows]
    results = [made_up.result(trial) for trial in plan]
    of = schema.schema(made_up.COLUMNS)
    wall, cpu = time.perf_counter(), time.process_time()
    with ParquetSink(where, of, made_up.PROVENANCE, flush_rows=flush, flush_seconds=1e9) as sink:
        for result in results:
            sink.write(result)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    again = time.process_time()
    with ParquetSink(where, of, made_up.PROVENANCE) as sink:
        assert len(sink.status) == rows
    return wall, cpu, time.process_time() - again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--folder", help="where the local folder is made; default: the system's temporary folder")
    options = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    os.environ |= {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = server.stdout.readline().strip()
    import boto3

    boto3.client("s3").create_bucket(Bucket="bench")
    print("| rows a commit | where | rows/s, wall | rows/s, CPU | ms of CPU a commit | s of CPU to open again |")
    print("|---:|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for flush in (1000, 100):
            for name, where in (("local disk", f"{folder}/{flush}"), ("moto's S3", f"s3://bench/{flush}")):
                wall, cpu, again = commit(where, options.rows, flush)
                speeds = (
                    f"{options.rows / wall:,.0f} | {options.rows / cpu:,.0f} | {1e3 * cpu * flush / options.rows:.1f}"
                )
                print(f"| {flush:,} | {name} | {speeds} | {again:.2f} |", flush=True)
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    main()
