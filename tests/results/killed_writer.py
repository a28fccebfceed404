"""A run that writes its trials and may be killed at any moment; started by test_sink. Arguments: folder, attempt."""

import dataclasses
import sys

import made_up

from raylab.results import ParquetSink, schema


def main(folder: str, attempt: int) -> None:
    plan = made_up.trials(models=8)
    with ParquetSink(
        folder, schema.schema(made_up.COLUMNS), made_up.PROVENANCE, flush_rows=3, flush_seconds=0.01
    ) as sink:
        pending = [trial for trial in plan if trial.id not in sink.done()]
        sink.retry(trial.id for trial in pending)
        print("ready", flush=True)
        for trial in pending:
            result = made_up.result(trial)
            # A third of the trials fail at first: every attempt mends some of them.
            if int(trial.id, 16) % 3 == 0 and int(trial.id, 16) % 7 >= attempt:
                result = dataclasses.replace(result, status="failed", values={}, error="made up")
            sink.write(dataclasses.replace(result, status="ok") if attempt > 7 else result)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
