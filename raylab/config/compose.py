"""How a command line becomes a Config."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylab import redact
from raylab.config import checks, unread
from raylab.config.explain import explain, refuse_extra
from raylab.config.folder import conf_dir, groups
from raylab.config.schema import Config
from raylab.errors import UserError
from raylab.models.sources import label

LONGEST_LABEL = 80  # characters of a results folder named after its models


def compose(overrides: Sequence[str], extra_dir: str | None = None) -> tuple[Config, dict[str, Any]]:
    """The Config of a command line, typed and as a plain dict. Raises UserError on anything Hydra refuses."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _store_schema()
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
        raise UserError(explain(error, lambda group: _section(group, overrides, extra_dir))) from error
    settings: dict[str, Any] = redact.plain(plain)  # goes into run.json, and into digests
    refuse_extra(settings)
    assert isinstance(config, Config)
    checks.check(config)
    unread.refuse(config.kind, overrides, settings, lambda words: compose(words, extra_dir)[1])
    return config, settings


@functools.cache
def _store_schema() -> None:
    """Tell Hydra what conf/ is checked against: once, as a tenth of a command's time goes into it."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)


def _section(group: str, overrides: Sequence[str], extra_dir: str | None) -> dict[str, Any]:
    """The chosen model or data, as they are but for the keys that the command gives."""
    choices = [word for word in overrides if word.partition("=")[0].lstrip("+") in (group, "experiment")]
    try:
        chosen = compose(choices, extra_dir)[1].get(group)
    except UserError:
        return {}
    return chosen if isinstance(chosen, dict) else {}


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
