"""Samples of a search, or the groups of a sweep, as trials of Ray Tune: rows stream to the driver as epochs end.

What has a row is told to Tune again and not worked again (`known`): a search that was killed goes on from its rows, and
Tune's own state says which samples there are and which of them were stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune import Callback
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.search_generator import SearchGenerator

from raylab import redact
from raylab.cluster.fetching import said
from raylab.cluster.halving import Halving
from raylab.cluster.reporting import EPOCH, FAILED, PLAN, REPORTED, ROWS, Known, Open, work
from raylab.space import Interval, Space
from raylab.types import Trial, TrialResult

JOB = "job"  # the parameter of a search whose samples are listed
NO_EPOCHS = 10**6  # ASHA's largest epoch: training ends by itself


class Listener(Protocol):
    """Who takes what comes of a search, on the driver."""

    def planned(self, params: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """A sample begins: the trials it will give rows for."""
        ...

    def rows(self, results: Sequence[TrialResult]) -> None:
        """Finished rows."""
        ...

    def ended(self, params: Mapping[str, Any], last: Mapping[str, Any], error: str | None) -> None:
        """A sample is over. error: what its worker died of, or None."""
        ...

    def tick(self) -> None:
        """Called several times a second."""
        ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """What Tune is asked for."""

    folder: Path  # where Tune keeps its state
    open: Open  # parameters -> experiment, the one group, columns of its rows. Picklable
    jobs: Sequence[int] | None  # parameters {"job": number} of a sweep; None: `samples` of a search
    listed: bool  # whether the samples of a search are known by number, or optuna chooses them from `space`
    space: Space
    samples: int
    seed: int
    metric: str
    mode: str
    asha: tuple[int, int] | None  # grace [epochs] and reduction factor; None: none is stopped
    max_concurrent: int | None
    cpus: float
    gpus: float
    memory_gb: float
    retries: int


class Ended:
    """What Tune knows of a sample in the end."""

    def __init__(self, result: Any) -> None:
        self.params: Mapping[str, Any] = result.config or {}
        self.last: Mapping[str, Any] = result.metrics or {}
        self.failed = result.error is not None


def run(search: Search, known: Known, listener: Listener) -> list[Ended]:
    """Search, or go on with a search that was broken off. Ray must be up. Returns every sample, of all sessions."""
    session = os.urandom(8).hex()
    shared = tune.with_parameters(work, open_=search.open, known=known, metric=search.metric, session=session)
    resources = {"cpu": search.cpus, "gpu": search.gpus, "memory": search.memory_gb * 1024**3}
    trainable = tune.with_resources(shared, resources)
    with _listening(_Relay(listener, search.retries, search.samples)) as relay:
        if tune.Tuner.can_restore(search.folder):
            tuner = tune.Tuner.restore(
                str(search.folder), trainable, restart_errored=True, param_space=_param_space(search)
            )
        else:
            tuner = _tuner(search, trainable, relay)
        return [Ended(result) for result in tuner.fit()]


def _tuner(search: Search, trainable: Any, relay: Callback) -> Any:
    scheduler = None
    search.folder.mkdir(parents=True, exist_ok=True)
    if search.asha:
        grace, reduction = search.asha
        scheduler = Halving(
            memory=str(search.folder / "rungs.jsonl"),
            time_attr=EPOCH,
            max_t=NO_EPOCHS,
            grace_period=grace,
            reduction_factor=reduction,
            stop_last_trials=False,
        )
    config = tune.TuneConfig(
        metric=search.metric,
        mode=search.mode,
        scheduler=scheduler,
        search_alg=_asked(search) if search.jobs is None else None,
        num_samples=search.samples if search.jobs is None else 1,
        max_concurrent_trials=search.max_concurrent if search.jobs is not None else None,
        reuse_actors=True,  # a new process would import torch anew for every sample
        trial_name_creator=lambda trial: trial.trial_id,
        trial_dirname_creator=lambda trial: trial.trial_id,
    )
    run_config = tune.RunConfig(
        name=search.folder.name,
        storage_path=str(search.folder.parent.absolute()),
        callbacks=[relay],
        verbose=0,
        failure_config=tune.FailureConfig(max_failures=search.retries),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
    )
    return tune.Tuner(trainable, param_space=_param_space(search), tune_config=config, run_config=run_config)


def _param_space(search: Search) -> dict[str, Any]:
    return {} if search.jobs is None else {JOB: tune.grid_search(list(search.jobs))}


def _asked(search: Search) -> SearchGenerator:
    """What gives the samples of a search, one by one."""
    searcher = _Listed() if search.listed else _optuna(search)
    return _Asked(ConcurrencyLimiter(searcher, search.max_concurrent) if search.max_concurrent else searcher)


class _Asked(SearchGenerator):
    """As many samples as the command asks for that goes on, not as the first one did."""

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state({**state, "total_samples": _current().samples, "finished": False})


class _Listed(Searcher):
    """Samples by number, from the first to the last."""

    def __init__(self) -> None:
        super().__init__()
        self._given = 0

    def suggest(self, trial_id: str) -> dict[str, Any]:
        self._given += 1
        return {JOB: self._given - 1}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Its number was given, whatever became of it."""

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(str(self._given))

    def restore(self, checkpoint_path: str) -> None:
        self._given = int(Path(checkpoint_path).read_text())


def _optuna(search: Search) -> Any:
    """Optuna's TPE. One sample at a time, the same seed gives the same samples."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def distribution(of: Any) -> Any:
        if not isinstance(of, Interval):
            return optuna.distributions.CategoricalDistribution(of.values())
        if of.whole:
            return optuna.distributions.IntDistribution(int(of.low), int(of.high), log=of.log)
        return optuna.distributions.FloatDistribution(of.low, of.high, log=of.log)

    return OptunaSearch(
        {key: distribution(each) for key, each in search.space.items()},
        metric=search.metric,
        mode=search.mode,
        sampler=optuna.samplers.TPESampler(seed=search.seed % 2**32),
    )


class _Relay(Callback):
    """Hands what Tune hears on to the listener of this process."""

    def __init__(self, listener: Listener, retries: int, samples: int) -> None:
        self._listener, self._retries, self.samples = listener, retries, samples
        self._begun = False

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if not self._begun:
            self._begun = True
            for trial in trials:
                _forget_what_is_gone(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._listener.tick()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.max_failures = self._retries

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        # Taken out: Tune keeps the last result of every sample in its state, which it writes all the time.
        plan = result.pop(PLAN, None)
        if plan is not None:
            self._listener.planned(trial.config, plan)
        self._listener.rows(result.pop(ROWS, ()))
        if result.get(FAILED):
            trial.max_failures = 0  # what raises would raise again; a worker that died is tried again

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._listener.ended(trial.config, trial.last_result or {}, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result or {}
        self._listener.ended(trial.config, last, last.get(FAILED) or _why(trial))

    def __reduce__(self) -> Any:
        # Tune pickles its callbacks; one that comes back is whoever listens then.
        return _current, ()


def _forget_what_is_gone(trial: Any) -> None:
    """Go on from the rows alone where Tune's checkpoint is not there, or not whole.

    Tune deletes the old one before its state names the new one, and may have been killed in between.
    """
    if trial.checkpoint and not (Path(trial.checkpoint.path) / REPORTED).exists():
        manager = trial.run_metadata.checkpoint_manager
        trial.run_metadata.checkpoint_manager = type(manager)(manager.checkpoint_config)


def _why(trial: Any) -> str:
    error = trial.get_pickled_error() if trial.pickled_error_file else None
    return redact.text(said(error or "its worker died"))


_now: list[_Relay] = []


def _current() -> _Relay:
    return _now[-1]


@contextmanager
def _listening(relay: _Relay) -> Iterator[_Relay]:
    """Tune as a part of raylab: silent, its folders to itself, Ctrl-C ours."""
    import logging

    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # result.json, progress.csv and TensorBoard beside our rows
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1",  # rows are committed every two seconds: a sample's state comes first
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_AIR_NEW_OUTPUT": "0",  # which prints even where it is told to be silent
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths are those of the command
    }
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    _now.append(relay)
    try:
        yield relay
    finally:
        _now.remove(relay)
