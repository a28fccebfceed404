"""run.json: what a run is, beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raylab import places, redact
from raylab.errors import UserError
from raylab.results import parts


def write_run_info(folder: parts.Where, info: Mapping[str, Any]) -> None:
    """Keep what a run is in `<folder>/run.json`, atomically. For the writer: call it with the sink open.

    By convention: config (a dict), digest, command, versions (a dict), planned (number of trials), started_at (ISO).
    """
    text, place = json.dumps(redact.plain(info), indent=2, default=str).encode(), places.at(folder)
    with places.in_one_line(place):
        place.replace(parts.RUN_INFO, lambda file: file.write(text))


def read_run_info(folder: parts.Where) -> dict[str, Any]:
    """What `write_run_info` kept; empty where there is none. Raises UserError if it cannot be read."""
    place = places.at(folder)
    try:
        return json.loads(place.read(parts.RUN_INFO))
    except FileNotFoundError:
        return {}
    except UserError:
        raise
    except (OSError, ValueError) as error:
        where = place.file(parts.RUN_INFO)
        raise UserError(f"{where} cannot be read ({error}): delete it; the next run writes it anew.") from error
