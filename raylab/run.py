"""`python -m raylab.run [experiment=NAME] [results=FOLDER] [seed=N] [plan=true] [any.config.key=value]`.

compose -> build -> plan -> run -> summary and report. Exit code 0: all rows ok; 1: some row failed; 2: bad input;
130: interrupted. Whatever happens, rows already written are kept, and the same command runs what is missing.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from rich.console import Console

from raylab import config as configuration
from raylab import experiments, spectral
from raylab.cluster import inline, preflight, provenance
from raylab.config import ClusterConfig, Config
from raylab.errors import UserError
from raylab.report import progress, tables
from raylab.results import estimate, load, schema, sink, statuses
from raylab.results.text import TextTable
from raylab.types import Experiment, SpectralOptions, Trial, TrialResult

EXIT_OK, EXIT_FAILED_ROWS, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130
CONFIG_DIR = "--config-dir"
FLUSH_ROWS, FLUSH_SECONDS = 1000, 2.0  # a kill -9 costs at most so many rows, which are then run again


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return EXIT_OK
    # A console script does not put the working directory on the path, `python -m` does: my_lab.py is found from both.
    sys.path[:] = dict.fromkeys([str(Path.cwd()), *sys.path])
    command = _command("raylab.run", *arguments)
    try:
        with _terminate_as_interrupt():
            return run(*_read(arguments), command)
    except UserError as error:
        print(f"raylab: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("\nInterrupted. Finished trials are kept; the same command goes on from here:", file=sys.stderr)
        print(f"  {command}", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(config: Config, settings: dict[str, Any], command: str) -> int:
    """One run of a config; `settings` is the same as plain data, for the record. Returns the exit code."""
    console = Console()
    folder = Path(config.results)
    console.print(f"[bold]raylab[/] {config.name}: resolving names, opening what they name", highlight=False)
    experiment = experiments.build(config)
    identity = dict(experiment.identity)
    _refuse_another_study(folder, settings, identity)
    trials = experiment.trials()
    if config.plan:
        console.print(_plan_table(experiment, trials, statuses(folder), folder))
        return EXIT_OK
    info = _run_info(settings, identity, command, len(trials))
    with sink.ParquetSink(folder, _schema(experiment), _common(info), FLUSH_ROWS, FLUSH_SECONDS) as rows:
        console.print(_plan_table(experiment, trials, rows.status, folder))
        sink.write_run_info(folder, info)
        rows.retry(trial.id for trial in trials)
        done = rows.done()
        pending = [trial for trial in trials if trial.id not in done]
        with progress.Progress(cast(progress.Kind, config.progress)) as display:
            display.start(len(trials), done=len(trials) - len(pending))
            first_error = _collect(_stream(config.cluster, config.spectral, experiment, pending), rows, display)
        assert rows.status.keys() >= {trial.id for trial in trials}, "a trial came back neither ok nor failed"
    return _farewell(console, folder, first_error)


def usage() -> str:
    """What `--help` prints: the command, the experiments, the groups to choose from."""
    lines = ["usage: python -m raylab.run [experiment=NAME] [results=FOLDER] [seed=N] [plan=true] [KEY=VALUE ...]", ""]
    groups = configuration.groups()
    lines.append("experiments")
    lines += [f"  {name:14} {configuration.about('experiment', name)}" for name in groups.pop("experiment")]
    lines += ["", "choices, as GROUP=NAME"]
    lines += [f"  {group:14} {', '.join(names)}" for group, names in groups.items()]
    lines += [
        "",
        "common keys (raylab/config.py says what each of them means)",
        "  results=FOLDER  where rows, checkpoints and the report go; default results/NAME. The same command again",
        "                  runs what is missing.",
        "  plan=true       show what would be run, and stop",
        "  models=N  draws=N  layers=[fc1,fc2]  perturbations=[original,rerandomize]",
        "  metrics=[standard,my_lab:gini]  train.epochs=N  model.width=N  cluster.workers=N",
        "  spectral.dtype=float32  progress=plain",
        f"  {CONFIG_DIR} FOLDER  a folder of your own with experiment/NAME.yaml, model/NAME.yaml, ...",
        "",
        "exit code: 0 all rows ok, 1 some row failed, 2 bad input, 130 interrupted",
    ]
    return "\n".join(lines)


def _command(module: str, *arguments: str) -> str:
    """A command to type, as this one was started."""
    prefix = ["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []
    return shlex.join([*prefix, "python", "-m", module, *arguments])


def _read(arguments: Sequence[str]) -> tuple[Config, dict[str, Any]]:
    overrides, extra = list(arguments), None
    if CONFIG_DIR in overrides:
        at = overrides.index(CONFIG_DIR)
        if at + 1 == len(overrides):
            raise UserError(f"{CONFIG_DIR} needs a folder.")
        extra = overrides[at + 1]
        del overrides[at : at + 2]
    for word in overrides:
        if word.startswith("-"):
            raise UserError(f"Unknown option '{word}'. Keys are written as key=value; --help shows them.")
    return configuration.compose(overrides, extra)


def _refuse_another_study(folder: Path, settings: dict[str, Any], identity: dict[str, str]) -> None:
    """Rows of two studies in one folder could not be told apart by who reads them."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"results={folder} is a file, not a folder: choose another.")
    before = sink.read_run_info(folder)
    if not before:
        return
    if not {"config", "identity"} <= before.keys():
        raise UserError(f"{folder}/run.json is not one that raylab wrote: choose results=ANOTHER_FOLDER.")
    changed = configuration.differences(before["config"], settings)
    was = before["identity"]
    changed += [
        f"another version of {key}" for key in sorted(was.keys() | identity.keys()) if was.get(key) != identity.get(key)
    ]
    if changed:
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        what = f"{'; '.join(changed[:3])}{more}"
        raise UserError(f"{folder} holds another study ({what}): choose results=ANOTHER_FOLDER, or remove it.")


def _plan_table(experiment: Experiment, trials: Sequence[Trial], status: Mapping[str, str], folder: Path) -> TextTable:
    done = {trial for trial, outcome in status.items() if outcome in sink.DONE}
    pending = [trial for trial in trials if trial.id not in done]
    work = {**experiment.work(pending), **_work_left(folder, pending)}
    plan = tables.Plan(
        trials=trials,
        done=done,
        failed=status.keys() - done,
        skipped=experiment.skipped,
        work={**work, "results": str(folder)},
    )
    return tables.plan_table(plan)


def _work_left(folder: Path, pending: Sequence[Trial]) -> dict[str, str]:
    """A note for the plan: seconds of work, by rows of earlier runs; nothing where there are none."""
    found = estimate.of_folder(folder, pending)
    if found is None:
        return {}
    rows = f"{found.rows:,} rows" if found.rows > 1 else "the one row"
    return {"left": f"about {progress.duration(found.seconds)} of work, by the seconds of {rows} already there"}


def _schema(experiment: Experiment) -> pa.Schema:
    ours = {**schema.IDENTITY, **schema.OUTCOME, **schema.PROVENANCE}.keys() - {"device"}
    if taken := ours & experiment.columns.keys():
        raise UserError(f"A metric gives the column '{min(taken)}', which every row has already: rename it.")
    return schema.schema(experiment.columns)


def _run_info(settings: dict[str, Any], identity: dict[str, str], command: str, planned: int) -> dict[str, Any]:
    return {
        "config": settings,
        "identity": identity,
        "digest": configuration.answer_digest(settings, identity),
        "command": command,
        "code": provenance.code_version(),
        "versions": provenance.library_versions(),
        "planned": planned,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _common(info: dict[str, Any]) -> dict[str, Any]:
    """The provenance that all rows of a run have in common."""
    spectral = info["config"]["spectral"]
    options = {key: spectral[key] for key in ("dtype", "small_sample", "threshold", "threshold_kind", "conv", "groups")}
    options["split"] = "parts" if spectral["split"] else "whole"
    started = datetime.fromisoformat(info["started_at"])
    return {
        "config": info["digest"],
        "code": info["code"],
        "versions": info["versions"],
        "started_at": started,
    } | options


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """A polite kill ends a run as Ctrl-C does: rows are committed, workers stopped."""

    def interrupt(number: int, frame: object) -> None:
        for kind in handled:  # once is enough: a second one must not break off the committing of rows
            signal.signal(kind, signal.SIG_IGN)
        raise KeyboardInterrupt

    handled = [signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        handled.append(signal.SIGINT)
    before = {kind: signal.signal(kind, interrupt) for kind in handled}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _stream(
    cluster: ClusterConfig, options: SpectralOptions, experiment: Experiment, pending: Sequence[Trial]
) -> Iterator[list[TrialResult]]:
    if not pending:
        return
    if cluster.backend == "inline":
        yield from inline.stream(experiment, pending)
        return
    if cluster.backend == "threads":
        yield from inline.stream_in_threads(experiment, pending, cluster.workers or spectral.threads_of(options))
        return
    with preflight.ray_session(cluster.address, cluster.workers, cluster.object_store_gb, experiment):
        from raylab.cluster.scheduler import Scheduler

        slots = preflight.worker_slots(cluster.cpus_per_worker, cluster.gpus_per_worker)
        actors = cluster.eigen_actors or max(1, slots // 4)
        # A queued worker would take the GPU share of an eigensolver that has to be started again: then none is queued.
        reserved = actors * cluster.gpus_per_eigen_actor
        if reserved:
            slots = preflight.worker_slots(cluster.cpus_per_worker, cluster.gpus_per_worker, reserved)
        scheduler = Scheduler(
            experiment,
            window=slots if reserved else slots + 1,
            cpus_per_worker=cluster.cpus_per_worker,
            gpus_per_worker=cluster.gpus_per_worker,
            eigen_actors=actors,
            gpus_per_eigen_actor=cluster.gpus_per_eigen_actor,
            retries=cluster.retries,
        )
        yield from scheduler.stream(pending)


def _collect(stream: Iterable[list[TrialResult]], rows: sink.ParquetSink, display: progress.Progress) -> str | None:
    """Results to rows and to the screen; returns the first error, or None when every row is ok."""
    first_error = None
    for batch in stream:
        for result in batch:
            recorded = rows.write(result)
            display.advance(recorded)
            if recorded.status == "failed" and first_error is None:
                first_error = recorded.error or "no reason given"
        rows.tick()
    return first_error


def _farewell(console: Console, folder: Path, first_error: str | None) -> int:
    """What came out, where it is, and what to type next. Returns the exit code."""
    from raylab.report import html, views

    view = views.of(load(folder))
    for table in view.summary():
        console.print(table)
    for finding in view.findings():
        console.print(f"- {finding}", highlight=False, markup=False)
    console.print()
    command = _command("raylab.query", str(folder), " ".join(view.query.split()))
    console.print(f"[bold]Report[/]  {html.write(folder, view)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]Next[/]    {command}", highlight=False, soft_wrap=True)
    if first_error is None:
        return EXIT_OK
    console.print("[bold red]Some rows failed.[/] The same command tries them again. The first error:")
    console.print(first_error.rstrip(), highlight=False, markup=False, soft_wrap=True)
    return EXIT_FAILED_ROWS


if __name__ == "__main__":
    raise SystemExit(main())
