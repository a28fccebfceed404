"""`python -m raylab.tune [experiment=NAME] [KEY=choice(...)|range(...)|interval(...)] [tune.search=...] [...]`.

A sweep or a search with Ray Tune, over any experiment of raylab that trains. The same command again goes on with what
is unfinished; exit codes as those of raylab.run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from raylab import config as configuration
from raylab import places, samples, search_screen, session
from raylab.cluster import nodes, preflight
from raylab.errors import UserError
from raylab.experiments import checkpoints
from raylab.interrupts import Interrupts
from raylab.recorder import Recorder, open_recorder
from raylab.report import samples as shown
from raylab.report.tracking import Tracker, open_tracker
from raylab.results import estimate, load, parts, searched, sink, statuses, write_run_info
from raylab.samples import JOB, Groups, Plan, Samples
from raylab.session import CONFIG_DIR, EXIT_OK, FLUSH_ROWS, FLUSH_SECONDS
from raylab.types import Trial, TrialResult

if TYPE_CHECKING:
    from raylab.cluster.tuning import Known

FINISHED = "finished"  # a file in Tune's folder: nothing is left of so many samples


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    return session.main("raylab.tune", argv, usage, _go)


def usage() -> str:
    """What `--help` prints."""
    return "\n".join(
        [
            "usage: python -m raylab.tune [experiment=NAME] [KEY=SWEEP ...] [tune.KEY=VALUE ...] [KEY=VALUE ...]",
            "",
            "Without a SWEEP each model of the experiment is one trial of Ray Tune, and rows are those of raylab.run.",
            "",
            "what is searched, in Hydra's words; each sample is one model, and rows get a column a searched key",
            "  KEY=a,b,c  KEY=choice(a,b)  KEY=choice([qr],[newton_schulz])  KEY=range(0,10)",
            "  KEY=interval(0,0.9)  KEY=int(interval(16,64))  KEY=tag(log,interval(1e-3,1e-1))",
            "",
            "how (raylab/config/schema.py says more)",
            "  tune.search=grid|random|optuna  default: grid of lists of values, random where there is an interval",
            "  tune.samples=20                 of random and optuna; more of them go on where a folder has ended",
            "  tune.scheduler=asha             stop samples that fall behind: tune.grace=1 (epochs for each),",
            "                                  tune.reduction=3 (the best third goes on)",
            "  tune.metric=accuracy  tune.mode=max  tune.max_concurrent=N",
            "  seed=N                          also seeds the search. Grid and random try the same samples always;",
            "                                  optuna with tune.max_concurrent=1, else it depends on who ends first",
            "",
            "as of raylab.run: results=FOLDER  plan=true  cluster.workers=N  cluster.cpus_per_worker=N",
            f"  cluster.gpus_per_worker=0.5  progress=plain  {CONFIG_DIR} FOLDER; `python -m raylab.run --help`",
            "",
            'example: python -m raylab.tune experiment=alpha_fixed models=1 "ranges=[[2,6]]" \\',
            '  "train.learning_rate=tag(log,interval(1e-3,1e-1))" tune.search=optuna tune.scheduler=asha',
            "",
            "exit code: 0 all rows ok, 1 some row failed, 2 bad input, 130 interrupted. The same command goes on.",
        ]
    )


def _go(overrides: list[str], extra_dir: str | None, command: str, interrupts: Interrupts) -> int:
    console = Console()
    console.print("[bold]raylab[/] tune: resolving names, opening what they name", highlight=False)
    return run(samples.plan(overrides, extra_dir), command, interrupts)


def run(plan: Plan, command: str, interrupts: Interrupts) -> int:
    """A sweep or a search, or what is left of it. Returns the exit code."""
    console, config, experiment = Console(), plan.config, plan.experiment
    folder, identity = Path(config.results), dict(experiment.identity)
    session.refuse_another_study(places.at(folder), plan.settings, identity)
    trials = experiment.trials()
    if config.plan:
        console.print(search_screen.plan_table(plan, trials, statuses(folder), estimate.of_folder(folder), folder))
        return EXIT_OK
    info = session.run_info(plan.settings, identity, command, _planned(plan, trials))
    # Tune knows the groups of a sweep by number: with other groups it begins anew, from the rows that are there.
    grouped = {} if plan.is_search else {"stack": str(plan.config.stack)}
    home = folder.absolute() / "tune" / configuration.study_digest(plan.settings, identity | grouped)
    with open_tracker(config.tracking, config.name, info, folder) as tracker:
        first_error = _search(plan, info, home, trials, tracker, interrupts)
        table = searched.read_samples(folder) if plan.is_search else None
        if table is None:
            return session.farewell(console, config, first_error)
        return search_screen.farewell(console, plan, table, first_error)


def _search(
    plan: Plan,
    info: dict[str, Any],
    home: Path,
    trials: Sequence[Trial],
    tracker: Tracker,
    interrupts: Interrupts,
) -> str | None:
    """Search, or go on with it. Returns the first error, or None when every row is ok."""
    config, folder = plan.config, Path(plan.config.results)
    with sink.ParquetSink(folder, plan.schema(), session.common(info), FLUSH_ROWS, FLUSH_SECONDS) as rows:
        console = Console()
        session.say_set_aside(console, rows)
        console.print(search_screen.plan_table(plan, trials, rows.status, rows.means, folder))
        write_run_info(folder, info)
        checkpoints.of(config.results).tidy()
        again = rows.retry(rows.failed())
        planned = () if plan.is_search else trials
        with open_recorder(config, info, rows, planned, tracker, interrupts) as recorder:
            driver = _Driver(plan, recorder)
            if again or not _over(plan, home, rows, trials):
                _work(plan, home, rows, driver)
                driver.settle(info["planned"])
        if _over(plan, home, rows, trials) and plan.is_search:  # of what was stopped early, no more is missing
            write_run_info(folder, info | {"planned": len(rows.status)})
    return recorder.first_error


def _planned(plan: Plan, trials: Sequence[Trial]) -> int:
    return len(trials) * (plan.samples if plan.is_search else 1)


def _over(plan: Plan, home: Path, rows: sink.ParquetSink, trials: Sequence[Trial]) -> bool:
    """Whether nothing is left to do."""
    if not plan.is_search and plan.config.tune.scheduler == "none":
        return not _missing(rows, trials)
    try:
        return int((home / FINISHED).read_text() or 0) >= plan.samples
    except FileNotFoundError:
        return False


def _missing(rows: sink.ParquetSink, trials: Sequence[Trial]) -> set[str]:
    return {trial.id for trial in trials} - rows.status.keys()


def _work(plan: Plan, home: Path, rows: sink.ParquetSink, driver: _Driver) -> None:
    config = plan.config
    if (home / FINISHED).exists() and not plan.is_search and config.tune.scheduler == "none":
        shutil.rmtree(home)  # rows that were there are gone: Tune thinks that it is done
    (home / FINISHED).unlink(missing_ok=True)
    cluster = config.cluster
    recorder = driver.recorder
    where = (cluster.address, cluster.workers, cluster.object_store_gb, plan.open)
    recorder.display.doing(session.ray_begins(cluster))
    with preflight.watched_session(*where, recorder.book.write, recorder.display.say) as recorder.meter:
        from raylab.cluster import tuning
        from raylab.cluster.room import Room

        room = Room(nodes.Shape.of(cluster), most=nodes.most_workers(cluster))
        recorder.display.set_workers(room.workers, at_work=False)
        if cluster.address != "local":
            _require_shared(Path(config.results))
        tune = config.tune
        search = tuning.Search(
            folder=home,
            open=plan.open,
            jobs=_jobs(plan, rows),
            listed=plan.jobs is not None,
            space=plan.open.space if isinstance(plan.open, Samples) else {},
            samples=plan.samples,
            seed=config.seed,
            metric=tune.metric,
            mode=tune.mode,
            asha=(tune.grace, tune.reduction) if tune.scheduler == "asha" else None,
            max_concurrent=_at_a_time(config),
            cpus=cluster.cpus_per_worker,
            gpus=cluster.gpus_per_worker,
            memory_gb=cluster.memory_gb_per_worker,
            retries=cluster.retries,
        )
        with recorder.committing():
            ended = tuning.run(search, _known(rows, plan), driver)
    if isinstance(plan.open, Samples):
        told = [search_screen.sample(plan, plan.open, each) for each in ended]
        searched.write_samples(Path(config.results), shown.ranked(told, tune.metric, tune.mode))
    if not any(each.failed for each in ended):
        (home / FINISHED).write_text(str(plan.samples))


def _at_a_time(config: configuration.Config) -> int | None:
    """How many samples; None: as many as there is room for."""
    return min(filter(None, (config.tune.max_concurrent, nodes.most_workers(config.cluster))), default=None)


def _require_shared(folder: Path) -> None:
    """Tune's workers write their checkpoints into the results folder, wherever they are."""
    if hosts := nodes.that_lack(folder.absolute() / parts.RUN_INFO):
        raise UserError(
            f"{folder} is not seen from {', '.join(hosts)}, and Ray Tune keeps its checkpoints there: give "
            "results=FOLDER on a drive that all nodes share, or leave out cluster= to use this machine alone."
        )


def _jobs(plan: Plan, rows: sink.ParquetSink) -> list[int] | None:
    """The numbers of groups that lack a row; None of a search, whose samples come one by one."""
    if not isinstance(plan.open, Groups):
        return None
    return [place for place, group in enumerate(plan.open.groups) if _missing(rows, group)]


def _known(rows: sink.ParquetSink, plan: Plan) -> Known:
    """What the rows that are there would tell Tune."""
    done = rows.done()
    if not done:
        return {}
    rows.flush()
    wanted = ["epoch", plan.config.tune.metric]
    table = load(rows.folder, ["trial_id", "layer", *wanted])
    told = [name for name in wanted if name in table.column_names]
    return {
        row["trial_id"]: {name: row[name] for name in told if row["layer"] is None and row[name] is not None}
        for row in table.to_pylist()
        if row["trial_id"] in done
    }


class _Driver:
    """What Tune tells, to the recorder of the run."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        self.recorder = recorder
        self._plan, self._rows, self._display = plan, recorder.rows, recorder.display
        self._trials: dict[str, Sequence[Trial]] = {}
        self._dropped = 0

    def planned(self, params: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """A sample begins."""
        self._display.doing("samples at work")
        self._trials[_name(params)] = trials

    def rows(self, results: Sequence[TrialResult]) -> None:
        """Rows; those of a trial that has one are dropped: two samples may be the same."""
        self.recorder.take(results)

    def ended(self, params: Mapping[str, Any], last: Mapping[str, Any], error: str | None) -> None:
        """A sample is over: what it lacks was stopped, or has failed with its worker."""
        missing = [trial for trial in self._trials_of(params) if trial.id not in self._rows.status]
        if error is None:
            self._display.drop(len(missing))
            self._dropped += len(missing)
        else:
            self.rows([TrialResult(trial, "failed", {}, error=error) for trial in missing])
            self.recorder.fail(error)
        self._rows.flush()  # before Tune's state says that the sample is over: it would not be worked again
        if isinstance(self._plan.open, Samples):
            self._display.say(search_screen.line(self._plan, self._plan.open, params, last, error))

    def _trials_of(self, params: Mapping[str, Any]) -> Sequence[Trial]:
        """Of a sweep they are known, even where a worker died before it could say so. A sample has its own table."""
        if isinstance(self._plan.open, Groups):
            return self._plan.open.groups[params[JOB]]
        return self._trials.get(_name(params), ())

    def settle(self, planned: int) -> None:
        """All is over: what earlier sessions stopped early is not to be run either."""
        self._display.drop(planned - self._dropped - len(self._rows.status))

    def tick(self) -> None:
        """Commit rows that are due."""
        self.recorder.tick()


def _name(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


if __name__ == "__main__":
    raise SystemExit(main())
