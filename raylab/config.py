"""The typed schema of conf/: every knob with its type, unit and meaning; and how a command line becomes a Config.

With run.py the only user of Hydra. A typo in a key or a value of the wrong type ends here, in one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raylab import checks, unread
from raylab.errors import UserError
from raylab.models.sources import label
from raylab.registry import suggest
from raylab.space import Choice, Dimension, Interval
from raylab.types import ORIGINAL, Budget, Recipe, RetractionOptions, SpectralOptions, digest


@dataclass(kw_only=True)
class ClusterConfig:
    """Where the work runs."""

    # "ray"; or in this process: "threads", side by side, or "inline", one trial after another (for a debugger)
    backend: str = "ray"
    address: str = "local"  # "local" starts Ray here and joins nothing; "auto" or an address joins a cluster
    workers: int | None = None  # tasks at a time when address is "local"; null: one a core (or one a GPU share)
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0  # fractions share a GPU
    eigen_actors: int | None = None  # null: one for every four workers, at least one
    gpus_per_eigen_actor: float = 0.0
    # shared memory for weights on their way, beside that of model and data themselves, when address is "local"
    object_store_gb: float = 0.5
    retries: int = 3  # of a task whose worker or node died


@dataclass(kw_only=True)
class TuneConfig:
    """What `python -m raylab.tune` searches, and how; raylab.run reads none of it."""

    # key of the config -> what it is searched over, in Hydra's words: "tag(log,interval(1e-3,1e-1))", "choice(16,32)".
    # A command line says the same as key=interval(...), and wins.
    space: dict[str, Any] = field(default_factory=dict)
    search: str | None = (
        None  # "grid", "random", "optuna"; null: a grid where every key has a list of values, or random
    )
    samples: int = 20  # of a search that is not a grid
    scheduler: str = "none"  # "asha" stops samples that fall behind, at epochs grace, grace x reduction, ...
    grace: int = 1  # epochs that each sample is given
    reduction: int = 3  # at such an epoch the best 1 / reduction of the samples seen there go on
    metric: str = "accuracy"  # column of the whole model's row that samples are ranked by
    mode: str = "max"  # or "min", such as of loss
    max_concurrent: int | None = None  # samples at a time; null: as many as there is room for


@dataclass(kw_only=True)
class Config:
    """One run."""

    name: str  # of the experiment; set by conf/experiment/*.yaml
    kind: str = "perturb_layers"  # which class of raylab.experiments
    results: str = "results/${name}"  # folder
    seed: int = 0
    plan: bool = False  # show the plan and stop
    progress: str = "auto"  # "auto" (rich on a terminal, else plain), "rich", "plain", "none"

    models: int = 1  # how many models are trained alike, each from its own initialisation
    stack: int = 1  # models trained together by one worker: 1 on a CPU core, 25 to 100 on a GPU
    model: dict[str, Any] = field(default_factory=dict)  # _target_ and its arguments; name: what rows call it
    data: dict[str, Any] = field(default_factory=dict)  # _target_ and its arguments
    train: Recipe = field(default_factory=Recipe)
    batch_size: int = 2500  # samples a forward pass in evaluation; halved when memory runs out
    precision: str = "float32"  # of evaluation: also "tf32", "bfloat16", "float16"; the baseline says what it costs
    activations: Budget = field(default_factory=Budget)  # where a worker keeps those below the layer it is at
    biases: str = "replaced"  # with their weights, or "kept", where a given model's layer is perturbed
    layers: list[str] = field(default_factory=lambda: ["*"])  # globs over layer names
    perturbations: list[str] = field(default_factory=lambda: [ORIGINAL])
    draws: int = 1  # repetitions of each random perturbation
    pool: str | None = None  # results folder of initial layers, of which models are made
    ranges: list[Any] = field(default_factory=list)  # pairs, lowest and highest alpha of the layers of such models
    # how the singular values of such models are kept while they are trained; svd_projection: put back once an epoch
    # rather than kept; free: not at all
    retractions: list[str] = field(default_factory=lambda: ["newton_schulz"])
    retraction: RetractionOptions = field(default_factory=RetractionOptions)
    similarity: bool = True  # compare each layer's output with the original's
    metrics: list[str] = field(default_factory=lambda: ["standard", "marchenko_pastur", "randomized"])
    spectral: SpectralOptions = field(default_factory=SpectralOptions)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)


LONGEST_LABEL = 80  # characters of a results folder named after its models

# How much is run: two commands that differ here add to one results folder.
_AXES = ("models", "layers", "perturbations", "draws")
# Which given weights are measured: a digest of their content is in every row, and models can be added to a folder.
_WEIGHTS = ("model.source", "model.adapter", "model.pretrained", "model.name")
# Where alpha is fixed, every epoch has its row, and ranges and retractions do not know of each other.
_OF_FIXED = ("train.epochs", "retractions", "ranges")
# Where and how it is run: no answer depends on it but for rounding (a stack of models on a GPU adds in another order).
# What the data are, their revision says, wherever they lie.
_INCIDENTAL = (
    "results",
    "plan",
    "progress",
    "cluster",
    "stack",
    "batch_size",
    "activations",
    "data",
    "spectral.device",
    "model.download",
    "tune.max_concurrent",
)


def answer_digest(config: dict[str, Any], identity: Mapping[str, str]) -> str:
    """Digest of everything that changes an answer: of a config, and what an experiment says of itself."""
    return digest([_without(config, (*_INCIDENTAL, "tune")), dict(identity)])


def study_digest(config: dict[str, Any], identity: Mapping[str, str]) -> str:
    """Digest of an answer, how much of it is asked for, and how it is searched."""
    return digest([_without(config, _INCIDENTAL), dict(identity)])


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What makes the rows of two configs incomparable, as "train.epochs: 12 -> 3"."""
    free = _AXES + _INCIDENTAL + {"spectra": _WEIGHTS, "alpha_fixed": _OF_FIXED}.get(str(new.get("kind")), ())
    # An older run has no word of keys that were added since, and raylab.run none of how a search is done.
    defaults = _without(asdict(Config(name="")), free)
    before, after = ({**defaults, **_without(config, free)} for config in (old, new))
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def conf_dir() -> Path:
    """The folder of the shipped configuration: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError("raylab's conf/ folder is missing from this installation: install raylab again.")


def groups() -> dict[str, list[str]]:
    """The groups of conf/ and what each offers."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def about(group: str, name: str) -> str:
    """What a file of conf/ says of itself in its last comment line."""
    lines = (conf_dir() / group / f"{name}.yaml").read_text().splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line]
    return comments[-1] if comments else ""


def compose(overrides: Sequence[str], extra_dir: str | None = None) -> tuple[Config, dict[str, Any]]:
    """The Config of a command line, typed and as a plain dict. Raises UserError on anything Hydra refuses."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name="schema", node=Config)
    search = [f"hydra.searchpath=[file://{Path(extra_dir).resolve()}]"] if extra_dir else []
    if extra_dir and not Path(extra_dir).is_dir():
        raise UserError(
            f"--config-dir {extra_dir} is no folder: give one that holds experiment/NAME.yaml and the like."
        )
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="raylab"):
            composed = hydra_compose("config", overrides=[*_with_source(overrides), *search])
        config = OmegaConf.to_object(composed)
        plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error
    settings: dict[str, Any] = {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}
    _refuse_extra(settings)
    assert isinstance(config, Config)
    checks.check(config)
    unread.refuse(config.kind, overrides, settings, lambda words: compose(words, extra_dir)[1])
    return config, settings


def searched(overrides: Sequence[str]) -> tuple[list[str], dict[str, Dimension]]:
    """The overrides that give one value, and what the others search: key=choice(...), range(...), interval(...), a,b.

    Raises UserError for what cannot be read, and what no search could use.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    plain, space = [], {}
    for word in overrides:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:  # a model's place, which compose will quote, or what it will explain
            plain.append(word)
            continue
        if override.is_sweep_override():
            space[override.get_key_element()] = _dimension(override, word)
        else:
            plain.append(word)
    return plain, space


def _dimension(override: Any, word: str) -> Dimension:
    """Hydra's sweep as plain data."""
    sweep = override.value()
    if unknown := sorted(getattr(sweep, "tags", set()) - {"log"}):
        raise UserError(f"{word}: the tag '{unknown[0]}' means nothing here; tag(log,interval(...)) is known.")
    if override.is_interval_sweep():
        low, high = sweep.start, sweep.end
        log, whole = "log" in sweep.tags, isinstance(low, int) and isinstance(high, int)
        if not low < high or (log and low <= 0):
            raise UserError(f"{word}: an interval goes up{', and its logarithm from above 0' if log else ''}.")
        return Interval(low, high, log, whole)
    if not hasattr(sweep, "shuffle") or sweep.tags or sweep.shuffle:  # a glob over file names has none of it
        raise UserError(f"{word}: write key=choice(a,b), key=range(0,10) or key=tag(log,interval(1e-3,1e-1)).")
    texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not texts:
        raise UserError(f"{word} has no values.")
    return Choice(texts)


def _with_source(overrides: Sequence[str]) -> list[str]:
    """`model=PLACE` and `model=[PLACE,PLACE]` spelt out: files, folders and names that are no model of conf/.

    They are to be measured, unless another experiment is named.
    """
    spelt: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        listed = value.startswith("[") and value.endswith("]")
        places = [place.strip(" '\"") for place in (value[1:-1].split(",") if listed else [value])]
        if key == "model" and "," in value and not listed and not Path(value).exists() and _is_place(value):
            raise UserError(f'Several models are written in brackets: "model=[{value}]".')
        if key != "model" or not any(_is_place(place) for place in places):
            spelt.append(override)
            continue
        quoted = [_quoted(place) for place in places]
        together = "+".join(label(Path(place)) for place in places)[:LONGEST_LABEL]
        source = f"[{','.join(quoted)}]" if listed else quoted[0]
        named = [other for other in overrides if other.startswith("experiment=")]
        if named and named[-1] != "experiment=spectra":  # it says itself what is done with a model
            spelt.append(f"model.source={source}")
        else:
            spelt += ["model=source", f"model.source={source}", f"model.name={_quoted(together)}"]
            spelt += [] if named else ["experiment=spectra"]
    return spelt


def _is_place(value: str) -> bool:
    return (
        value[:1] != "{" and value not in groups()["model"] and ("/" in value or "." in value or Path(value).exists())
    )


def _quoted(text: str) -> str:
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def _explain(error: Exception) -> str:
    """Hydra's many lines, as one."""
    text = str(error)
    if several := re.search(r"Ambiguous value for argument '(.+)'|Sweep parameters '(.+)' requires", text):
        word = several[1] or several[2]
        return f"{word} gives several values, which `python -m raylab.tune` tries: give one, or a list in brackets."
    if missing := re.search(r"Could not find '([^']+)/([^']+)'", text):
        group, name = missing.groups()
        return f"Unknown {group} '{name}'.{suggest(name, groups().get(group, []))}"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(unknown[1])
    if "See https" in text or "override '" in text:  # the grammar of an override
        first = text.splitlines()[0].rstrip(".")
        return f"Cannot read an override: {first}. Write key=value, quoted where it has brackets."
    reason = str(error.__cause__ or text).splitlines()[0].rstrip(".")
    where = text.splitlines()[0].removeprefix("Error merging override ").rstrip(".")
    if "not a ListConfig" in reason:
        return f"{where} must be a list: write it in brackets, key=[a,b]."
    if composing := re.search(r"In '([^']+)': .* while composing", text):
        file = f"{composing[1]}.yaml"
        return (
            f"{file} does not fit the schema: an experiment's first line must be `# @package _global_`, and keys known."
        )
    return f"Bad value in {where}: {reason}." if error.__cause__ else f"{reason}."


def _unknown_key(key: str) -> str:
    parent, _, leaf = key.rpartition(".")
    owner = _SECTIONS.get(parent)
    if owner is None:
        hint = f"add it with +{key}=... if its _target_ takes it"
        return f"Unknown key '{key}': the chosen {parent} has no '{leaf}' ({hint})."
    return f"Unknown key '{key}'.{suggest(leaf, owner.__dataclass_fields__)}"


def _refuse_extra(config: dict[str, Any]) -> None:
    """What `+key=value` put where the schema has no such key: Hydra lets it pass, and nothing would read it."""
    for parent, owner in _SECTIONS.items():
        section = config[parent] if parent else config
        for key in section:
            if key not in owner.__dataclass_fields__:
                raise UserError(_unknown_key(f"{parent}.{key}" if parent else key))


_SECTIONS: dict[str, Any] = {
    "": Config,
    "cluster": ClusterConfig,
    "train": Recipe,
    "spectral": SpectralOptions,
    "activations": Budget,
    "tune": TuneConfig,
    "retraction": RetractionOptions,
}


def _without(config: Mapping[str, Any], sections: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """A config as dotted keys and values, less some sections."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in sections:
            continue
        if isinstance(value, dict):
            flat |= _without(value, sections, f"{key}.")
        else:
            flat[key] = value
    return flat
