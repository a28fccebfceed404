"""The report of a results folder: one HTML file that needs nothing else, and its figures as files.

It reads the folder only, at any time: an unfinished run gives the report of what is there.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from raylab import places
from raylab.errors import UserError, last_line
from raylab.places import Place
from raylab.report import labels, views
from raylab.report.picture import INK, Picture
from raylab.report.progress import duration
from raylab.report.view import View
from raylab.results import frame, parts, schema
from raylab.results.run_info import read_run_info

if TYPE_CHECKING:
    from jinja2 import Template

REPORT = "report.html"
ERRORS = 5  # failed rows that are shown in full


@dataclass(frozen=True)
class Shown:
    """A figure as the template takes it."""

    picture: Picture
    svgs: list[str]


def write(folder: parts.Where, view: View | None = None) -> str | Path:
    """Write <folder>/report.html, its figures as <folder>/figures/*.png and *.svg, and its files, such as
    <folder>/correlations.csv.

    `view`: of these results, where the caller has it. Returns where the report lies. Raises UserError for a folder
    without results, with a damaged part, or that cannot be written.
    """
    place = places.at(folder)
    table = parts.load(place)
    view = view or views.of(table)
    drawn = view.pictures()
    files = view.files()
    page = render(place, table, view, drawn, {name: about for name, (about, _) in files.items()})
    with place.written() as here:
        for picture in drawn:
            with writing(place / "figures", place):
                picture.save(here / "figures")
        for name, (_, rows) in files.items():
            with writing(place.file(name), place):
                csv.write_csv(rows, here / name)
        save(page, here, place)
    return place.file(REPORT)


def save(page: str, here: Path, place: Place) -> None:
    """The page as <place>/report.html, whole or not at all. Raises UserError if it cannot be written.

    here: the folder to write into, of this machine.
    """
    temporary = here / f".{REPORT}.tmp"
    with writing(place.file(REPORT), place):
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(here / REPORT)


@contextmanager
def writing(target: object, folder: Place) -> Iterator[None]:
    """What stands in the way of a file is one line: the rows are safe, the report can be had later."""
    try:
        yield
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        again = shlex.join(["python", "-m", "raylab.report", str(folder)])
        raise UserError(
            f"Cannot write {target} ({reason}). The rows are kept: clear the way, then `{again}` writes the report."
        ) from error


def template(name: str) -> Template:
    """A page to fill in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("raylab.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["batch_by_size"] = _pairs
    environment.globals |= {"ink": INK, "glyphs": labels.GLYPHS, "hollow": labels.HOLLOW}
    return environment.get_template(name)


def render(folder: Place, table: pa.Table, view: View, drawn: list[Picture], files: Mapping[str, str]) -> str:
    """The page as text. files: what lies beside it, and what that holds."""
    info = read_run_info(folder)
    experiment = ", ".join(dict.fromkeys(filter(None, frame.texts(table, "experiment")))) or _last(folder)
    return template("report.html.j2").render(
        experiment=experiment,
        folder=str(folder),
        command=info.get("command", ""),
        digest=info.get("digest", ""),
        config=_flat(info.get("config", {})),
        counts=_counts(table, info, view),
        findings=view.findings(),
        missing=view.missing(drawn),
        shown=[Shown(picture, picture.inline()) for picture in drawn],
        tables=view.tables(),
        files=files,
        open_rows=view.open_rows,
        example=view.query,
        failures=_failures(table, "failed"),
        skips=_failures(table, "skipped"),
        provenance=_provenance(table),
        columns=[(field.name, str(field.type), schema.description(field)) for field in table.schema],
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _last(folder: Place) -> str:
    """The name of a folder, without where it lies."""
    return str(folder).rpartition("/")[2]


def _pairs(shown: list[Shown]) -> list[list[Shown]]:
    """Neighbouring figures of one panel go side by side."""
    groups: list[list[Shown]] = []
    for each in shown:
        single = len(each.svgs) == 1
        if single and groups and len(groups[-1]) == 1 and len(groups[-1][0].svgs) == 1:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _counts(table: pa.Table, info: Mapping[str, Any], view: View) -> dict[str, Any]:
    status = Counter(frame.texts(table, "status"))
    planned = int(info.get("planned") or 0)
    return {
        "rows": table.num_rows,
        "ok": status["ok"],
        "failed": status["failed"],
        "skipped": status["skipped"],
        "planned": planned,
        "share": min(1.0, table.num_rows / planned) if planned else 1.0,
        "models": frame.count_models(table) if view.of_models else 0,
        "layers": len(frame.layers(table)),
        "work": duration(float(np.nansum(frame.floats(table, "seconds")))),
    }


def _failures(table: pa.Table, status: str) -> list[dict[str, str]]:
    """The first rows of that status, each kind of error once."""
    bad = table.filter(pa.array(frame.texts(table, "status") == status))
    kinds: dict[str, dict[str, str]] = {}
    columns = ("error", "model", "replicate", "layer", "perturbation", "host")
    for row in zip(*(frame.texts(bad, name) for name in columns), strict=True):
        error, model, replicate, layer, perturbation, host = row
        last = last_line(error) or "no message"
        where = f"{model} {replicate}, {layer or 'whole model'}, {perturbation}" + (f", on {host}" if host else "")
        kinds.setdefault(last, {"last": last, "error": error.strip(), "where": where, "count": "0"})
        kinds[last]["count"] = str(int(kinds[last]["count"]) + 1)
    return list(kinds.values())[:ERRORS]


def _provenance(table: pa.Table) -> list[tuple[str, str]]:
    """What rows say of how they came about: one value, or how many different ones."""
    said = []
    for name in (*schema.PROVENANCE, "estimator", "seed", "data", "metrics", "host"):
        values = [value for value in dict.fromkeys(frame.texts(table, name)) if value]
        if name in ("started_at", "finished_at") and values:
            values = [min(values), max(values)][: 1 + (min(values) != max(values))]
            said.append((name, " to ".join(value[:19] for value in values)))
        elif values:
            said.append((name, ", ".join(values[:4]) + (f" and {len(values) - 4} more" if len(values) > 4 else "")))
    return said


def _flat(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested configuration as dotted keys."""
    if not isinstance(config, Mapping):
        return [(prefix, config if isinstance(config, str) else json.dumps(config, default=str))]
    pairs = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in config.items()]
    return [pair for each in pairs for pair in each]
