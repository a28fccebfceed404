"""A run that writes its trials and is killed; started by test_sink.

Arguments: folder, attempt (decides which trials fail), step: die just before that dealing with the disk (0: never).
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import made_up
import pyarrow.parquet as pq

from raylab.results import ParquetSink, schema

LAST = 99


def die_at(step: int) -> None:
    """SIGKILL this process before its `step`-th call that changes the disk; a write is cut off halfway."""
    calls = 0

    def counted(call):
        def counting(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == step:
                if call is pq.write_table:
                    arguments[1].write(b"PAR1 and then no more")
                    arguments[1].flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counting

    pq.write_table = counted(pq.write_table)
    os.fsync, os.link, Path.unlink = counted(os.fsync), counted(os.link), counted(Path.unlink)


def main(folder: str, attempt: int, step: int) -> None:
    plan = made_up.trials(models=8)
    columns = schema.schema(made_up.COLUMNS)
    die_at(step)
    with ParquetSink(folder, columns, made_up.PROVENANCE, flush_rows=3, flush_seconds=0.01) as sink:
        pending = [trial for trial in plan if trial.id not in sink.done()]
        # Some only, until the last: what stays of a part has to survive as well.
        sink.retry(trial.id for trial in (pending if attempt == LAST else pending[::2]))
        print("ready", flush=True)
        for trial in pending:
            result = made_up.result(trial)
            # A third of the trials fail at first: every attempt mends some of them.
            if int(trial.id, 16) % 3 == 0 and int(trial.id, 16) % 7 >= attempt:
                result = dataclasses.replace(result, status="failed", values={}, error="made up")
            sink.write(dataclasses.replace(result, status="ok") if attempt > 7 else result)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
