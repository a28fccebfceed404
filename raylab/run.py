"""`python -m raylab.run [experiment=NAME] [results=FOLDER] [seed=N] [plan=true] [any.config.key=value]`.

compose -> build -> plan -> run -> summary and report. Exit code 0: all rows ok; 1: some row failed; 2: bad input;
130: interrupted. Whatever happens, rows already written are kept, and the same command runs what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from raylab import config as configuration
from raylab import experiments, places, session, spectral
from raylab.cluster import inline, preflight
from raylab.config import ClusterConfig, Config, unread
from raylab.experiments import checkpoints
from raylab.interrupts import Interrupts
from raylab.recorder import Recorder, open_recorder
from raylab.report.tracking import Tracker, open_tracker
from raylab.results import estimate, sink, statuses, write_run_info
from raylab.session import CONFIG_DIR, EXIT_OK, FLUSH_ROWS, FLUSH_SECONDS
from raylab.types import Experiment, SpectralOptions, Trial, TrialResult


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    return session.main("raylab.run", argv, usage, _run)


def _run(overrides: list[str], extra_dir: str | None, command: str, interrupts: Interrupts) -> int:
    unread.refuse_tuning(overrides)
    config, settings = configuration.compose(overrides, extra_dir)
    del settings["tune"]  # which a file may have given: rows and folder are those of a sweep by raylab.tune
    return run(config, settings, command, interrupts)


def run(config: Config, settings: dict[str, Any], command: str, interrupts: Interrupts) -> int:
    """One run of a config; `settings` is the same as plain data, for the record. Returns the exit code."""
    console = Console()
    folder = places.at(config.results)
    console.print(f"[bold]raylab[/] {config.name}: resolving names, opening what they name", highlight=False)
    experiment = experiments.build(config)
    identity = dict(experiment.identity)
    session.refuse_another_study(folder, settings, identity)
    trials = experiment.trials()
    if config.plan:
        console.print(session.plan_table(experiment, trials, statuses(folder), estimate.of_folder(folder), folder))
        return EXIT_OK
    info = session.run_info(settings, identity, command, len(trials))
    with open_tracker(config.tracking, config.name, info, folder) as tracker:
        first_error = _work(config, info, experiment, trials, tracker, interrupts)
        return session.farewell(console, config, first_error)


def _work(
    config: Config,
    info: dict[str, Any],
    experiment: Experiment,
    trials: Sequence[Trial],
    tracker: Tracker,
    interrupts: Interrupts,
) -> str | None:
    """Run what is missing. Returns the first error, or None when every row is ok."""
    with sink.ParquetSink(
        config.results, session.schema(experiment.columns), session.common(info), FLUSH_ROWS, FLUSH_SECONDS
    ) as rows:
        console = Console()
        session.say_set_aside(console, rows)
        console.print(session.plan_table(experiment, trials, rows.status, rows.means, rows.folder))
        write_run_info(rows.folder, info)
        checkpoints.of(config.results).tidy()
        rows.retry(trial.id for trial in trials)
        with open_recorder(config, info, rows, trials, tracker, interrupts) as recorder:
            for batch in _stream(config.cluster, config.spectral, experiment, recorder):
                recorder.take(batch)
        assert rows.status.keys() >= {trial.id for trial in trials}, "a trial came back neither ok nor failed"
    return recorder.first_error


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
        "common keys (raylab/config/schema.py says what each of them means)",
        "  results=FOLDER  where rows, checkpoints and the report go; default results/NAME. The same command again",
        "                  runs what is missing.",
        "  plan=true       show what would be run, and stop",
        "  report=false    draw no report in the end: `python -m raylab.report FOLDER` does so at any time",
        "  models=N  draws=N  layers=[fc1,fc2]  perturbations=[original,rerandomize]",
        "  metrics=[standard,my_lab:gini]  train.epochs=N  model.width=N  cluster.workers=N",
        "  spectral.dtype=float32  progress=plain",
        f"  {CONFIG_DIR} FOLDER  a folder of your own with experiment/NAME.yaml, model/NAME.yaml, ...",
        "",
        "exit code: 0 all rows ok, 1 some row failed, 2 bad input, 130 interrupted",
    ]
    return "\n".join(lines)


def _stream(
    cluster: ClusterConfig,
    options: SpectralOptions,
    experiment: Experiment,
    recorder: Recorder,
) -> Iterator[list[TrialResult]]:
    pending = recorder.pending
    if not pending:
        return
    if cluster.backend == "inline":
        recorder.display.set_workers(1)
        yield from inline.stream(experiment, pending)
        return
    if cluster.backend == "threads":
        threads = cluster.workers or spectral.threads_of(options)
        recorder.display.set_workers(threads)
        yield from inline.stream_in_threads(experiment, pending, threads)
        return
    where = (cluster.address, cluster.workers, cluster.object_store_gb, experiment)
    seen = (recorder.book.write, recorder.display.say)
    recorder.display.doing(session.ray_begins(cluster))
    with preflight.watched_session(*where, *seen) as recorder.meter, recorder.committing():
        from raylab.cluster.scheduler import Scheduler

        scheduler = Scheduler.of(experiment, cluster)
        for batch in scheduler.stream(pending):
            recorder.display.set_workers(scheduler.workers, scheduler.at_work)
            yield batch


if __name__ == "__main__":
    raise SystemExit(main())
