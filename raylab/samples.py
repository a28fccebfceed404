"""What `python -m raylab.tune` runs: the groups of one experiment, or samples, each an experiment of one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from raylab import config as configuration
from raylab import experiments, session, space
from raylab.config import Config, TuneConfig
from raylab.errors import UserError
from raylab.places import is_url
from raylab.registry import suggest
from raylab.results import searched
from raylab.space import Sample, Space
from raylab.types import Experiment, Group, Value

JOB = "job"  # the one parameter of a sample that is listed


@dataclass(frozen=True)
class Groups:
    """The groups of an experiment, by number: a sweep in which nothing is searched."""

    experiment: Experiment
    groups: tuple[Group, ...]

    def __call__(self, params: Mapping[str, Any]) -> tuple[Experiment, Group, Mapping[str, Value]]:
        """The experiment, the group of a number, and no more columns."""
        return self.experiment, self.groups[params[JOB]], {}


@dataclass(frozen=True)
class Samples:
    """Experiments that are built where they are worked, each from the command and a sample's values."""

    overrides: tuple[str, ...]
    extra_dir: str | None
    space: Space
    columns: Mapping[str, str]  # searched key -> its column, where it has one
    listed: tuple[Sample, ...] = ()  # by number; empty where the search chooses as it goes
    seed: int = 0  # of samples at random: one that was begun by a command for more of them is not listed

    def sample(self, params: Mapping[str, Any]) -> Sample:
        """The values of a sample, as a command line writes them."""
        if JOB in params:
            number = params[JOB]
            is_listed = number < len(self.listed)
            return self.listed[number] if is_listed else space.random_sample(self.space, number, self.seed)
        return {key: value if isinstance(value, str) else repr(value) for key, value in params.items()}

    def __call__(self, params: Mapping[str, Any]) -> tuple[Experiment, Group, Mapping[str, Value]]:
        """The experiment of a sample, its one group, and the columns that say which values it has."""
        sample = self.sample(params)
        config, settings = configuration.compose([*self.overrides, *_words(sample)], self.extra_dir)
        experiment = experiments.build(config)
        values = {column: self.value(key, sample[key]) for key, column in self.columns.items()}
        digest = configuration.answer_digest(settings, experiment.identity)
        return experiment, _one_group(experiment, self.space), {**values, "config": digest}

    def value(self, key: str, text: str) -> float | str:
        """A value as its column holds it."""
        return float(text) if self.space[key].number else text


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep or a search, every name of it resolved."""

    config: Config
    settings: dict[str, Any]
    experiment: Experiment  # of a sweep; of a search, that of its first sample
    open: Groups | Samples
    jobs: int | None  # how many there are; None: optuna chooses them
    columns: Mapping[str, type] = field(default_factory=dict)  # of all samples' experiments

    @property
    def is_search(self) -> bool:
        """Whether values of the config are searched."""
        return isinstance(self.open, Samples)

    @property
    def samples(self) -> int:
        """How many samples, or groups, there are."""
        return self.config.tune.samples if self.jobs is None else self.jobs

    def schema(self) -> pa.Schema:
        """Of the rows: an experiment's, with a column for each searched key that has none."""
        plain = session.schema(self.columns)
        if not isinstance(self.open, Samples):
            return plain
        over = self.open.space
        kinds = {key: float if over[key].number else str for key in self.open.columns}
        more = [searched.field(name, key, str(over[key]), kinds[key]) for key, name in self.open.columns.items()]
        return pa.schema([*plain, *more])


def plan(overrides: Sequence[str], extra_dir: str | None) -> Plan:
    """What a command asks for. Raises UserError for anything that is not there, cannot be searched or not be ranked."""
    plain, over = configuration.searched(overrides)
    config, settings = configuration.compose(plain, extra_dir)
    over = {**_of_file(config.tune, plain), **over}
    if config.cluster.backend != "ray":
        raise UserError(f"raylab.tune works on Ray: leave out cluster={config.cluster.backend}.")
    if config.cluster.deadline_minutes is not None:
        raise UserError(
            "cluster.deadline_minutes is for `python -m raylab.run`: Ray Tune has no deadline for a sample."
        )
    if is_url(config.results):
        raise UserError(f"results={config.results}: Ray Tune keeps its state in a folder of this machine, so give one.")
    _refuse_unread(config.tune, plain, over)
    return _search(plain, extra_dir, over) if over else _sweep(config, settings)


def _sweep(config: Config, settings: dict[str, Any]) -> Plan:
    experiment = experiments.build(config)
    _refuse_unranked(config, experiment, scheduled=config.tune.scheduler != "none")
    if config.tune.scheduler == "none":
        del settings["tune"]  # rows and folder are those of raylab.run
    groups = tuple(experiment.groups(experiment.trials()))
    opened = Groups(experiment, groups)
    return Plan(
        config=config,
        settings=settings,
        experiment=experiment,
        open=opened,
        jobs=len(groups),
        columns=experiment.columns,
    )


def _search(plain: Sequence[str], extra_dir: str | None, over: Space) -> Plan:
    probes = space.probes(over)
    config, settings = configuration.compose([*plain, *_words(probes[0])], extra_dir)
    tune = config.tune
    listable = all(dimension.values() for dimension in over.values())
    tune.search = tune.search or ("grid" if listable else "random")
    settings["tune"] |= {"search": tune.search, "space": {key: str(each) for key, each in over.items()}}
    experiment = experiments.build(config)
    _refuse_unranked(config, experiment, scheduled=True)
    _one_group(experiment, over)
    columns = dict(experiment.columns)
    for probe in probes[1:]:
        other = experiments.build(configuration.compose([*plain, *_words(probe)], extra_dir)[0])
        _one_group(other, over)
        columns |= other.columns
    listed = space.grid(over) if tune.search == "grid" else []
    if tune.search == "random":
        listed = space.randomly(over, tune.samples, config.seed)
    names: dict[str, str] = {}
    for key in over:
        if key != "seed":  # which every row has
            names[key] = searched.column(key, {*columns, *names.values()})
    fixed = (*plain, f"results={_quoted(Path(config.results).absolute())}")  # a worker may be in another folder
    opened = Samples(fixed, extra_dir and str(Path(extra_dir).absolute()), over, names, tuple(listed), config.seed)
    return Plan(
        config=config,
        settings=settings,
        experiment=experiment,
        open=opened,
        jobs=len(listed) or None,
        columns=columns,
    )


def _quoted(path: Path) -> str:
    escaped = str(path).replace("'", "\\'")
    return f"'{escaped}'"


def _words(sample: Sample) -> list[str]:
    return [f"{key}={text}" for key, text in sample.items()]


def _of_file(tune: TuneConfig, plain: Sequence[str]) -> dict[str, space.Dimension]:
    """What a config file says is searched, less what the command gives one value."""
    given = {word.partition("=")[0] for word in plain}
    words = [f"{key}={text}" for key, text in tune.space.items() if key not in given]
    single, over = configuration.searched(words)
    if single:
        raise UserError(f"tune.space: {single[0]} is one value: write choice(...), range(...) or interval(...).")
    return over


def _one_group(experiment: Experiment, over: Space) -> Group:
    """The one group of a sample's experiment. Several would end one after another: no epoch of theirs compares."""
    groups = experiment.groups(experiment.trials())
    if len(groups) != 1:
        key, dimension = next(iter(over.items()))
        raise UserError(
            f"{key}={dimension} is searched, and each sample would train {len(groups)} models, which cannot be ranked: "
            "give one of each (models=1, one range), or search over seed=range(0,10) as well."
        )
    return groups[0]


def _refuse_unread(tune: TuneConfig, plain: Sequence[str], over: Space) -> None:
    """What is given and would change nothing."""
    given = {word.partition("=")[0].removeprefix("tune."): word for word in plain if word.startswith("tune.")}
    listable = all(dimension.values() for dimension in over.values())
    is_grid = tune.search == "grid" or (tune.search is None and listable)
    if not over and "search" in given:
        raise UserError(
            f"{given['search']}: nothing is searched. Write key=choice(...) or key=interval(...) beside it."
        )
    if "samples" in given and is_grid:
        what = (
            "a grid takes every value: give tune.search=random or optuna beside it" if over else "nothing is searched"
        )
        raise UserError(f"{given['samples']} would not be read: {what}.")
    if tune.scheduler == "none":
        for key in ("grace", "reduction"):
            if key in given:
                raise UserError(f"{given[key]} is for tune.scheduler=asha, which is not asked for.")


def _refuse_unranked(config: Config, experiment: Experiment, scheduled: bool) -> None:
    """A metric, or epochs, that the experiment's rows do not have."""
    tune = config.tune
    if scheduled and tune.metric not in experiment.columns:
        known = [name for name in ("accuracy", "loss") if name in experiment.columns]
        hint = suggest(tune.metric, known) if known else " Search an experiment that trains, such as alpha_fixed."
        raise UserError(f"tune.metric={tune.metric}: kind={config.kind} gives no such column.{hint}")
    if tune.scheduler == "asha" and "epoch" not in experiment.columns:
        raise UserError(
            f"tune.scheduler=asha compares samples epoch by epoch, and kind={config.kind} evaluates its models once: "
            "leave it out."
        )
