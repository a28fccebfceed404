"""`python -m raylab.run [experiment=NAME] [results=FOLDER] [seed=N] [plan=true] [any.config.key=value]`.

compose -> build -> plan -> run -> summary and report. Exit code 0: all rows ok; 1: some row failed; 2: bad input;
130: interrupted. Whatever happens, rows already written are kept, and the same command runs what is missing.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raylab import config as configuration
from raylab import experiments
from raylab.cluster import provenance
from raylab.config import Config
from raylab.errors import UserError
from raylab.results import schema, sink
from raylab.types import Experiment, Trial, TrialResult

EXIT_OK, EXIT_FAILED_ROWS, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return EXIT_OK
    # A console script does not put the working directory on the path, `python -m` does: my_lab.py is found from both.
    sys.path[:] = dict.fromkeys([str(Path.cwd()), *sys.path])
    try:
        with _terminate_as_interrupt():
            return run(*_read(arguments))
    except UserError as error:
        print(f"raylab: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("\nraylab: interrupted. Finished trials are kept; the same command goes on from here:", file=sys.stderr)
        print(f"  {_command(arguments)}", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(config: Config, settings: dict[str, Any], command: str) -> int:
    """One run of a config; `settings` is the same config as plain data, for the record. Returns the exit code."""
    from raylab.report import html, progress, tables

    folder = Path(config.results)
    _refuse_other_study(folder, settings)
    experiment = experiments.build(config)
    trials = experiment.trials()
    if config.plan:
        tables.show_plan(experiment, trials, folder)
        return EXIT_OK
    info = _run_info(settings, command, len(trials))
    with sink.ParquetSink(folder, schema.schema(experiment.columns), _provenance(info)) as rows:
        rows.retry(trial.id for trial in trials)
        pending = [trial for trial in trials if trial.id not in rows.done()]
        tables.show_plan(experiment, trials, folder)
        sink.write_run_info(folder, info)
        failed = _work(config, experiment, pending, rows, progress)
    tables.show_summary(folder)
    report = html.write(folder)
    _farewell(report, folder, failed)
    return EXIT_FAILED_ROWS if failed else EXIT_OK
