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

from raylab.errors import UserError
from raylab.report import figures, labels, scoreboard, spectra, tables
from raylab.report import target as targets
from raylab.report.findings import findings
from raylab.report.picture import INK, Picture
from raylab.report.progress import duration
from raylab.results import frame, parts, schema
from raylab.results.correlate import correlate
from raylab.results.sink import read_run_info
from raylab.results.text import TextTable

if TYPE_CHECKING:
    from jinja2 import Template

ERRORS = 5  # failed rows that are shown in full
OPEN_ROWS = 30  # of a table by layer; a longer one is folded
EXAMPLE = """SELECT layer, perturbation, avg({column}), avg(alpha)
  FROM trials WHERE status = 'ok' AND isfinite(alpha) GROUP BY ALL ORDER BY ALL"""


@dataclass(frozen=True)
class Shown:
    """A figure as the template takes it."""

    picture: Picture
    svgs: list[str]


def write(
    folder: str | Path, correlations: pa.Table | None = None, scores: scoreboard.Scoreboard | None = None
) -> Path:
    """Write <folder>/report.html, its figures as <folder>/figures/*.png and *.svg, and its tables as *.csv.

    `correlations`, `scores`: of these results, where the caller has them (`raylab.results.correlate.correlate`,
    `raylab.report.scoreboard.of`). Returns the path of the report. Raises UserError for a folder without results, with
    a damaged part, or that cannot be written.
    """
    folder = Path(folder)
    table = parts.load(folder)
    if correlations is None:
        correlations = correlated(table)
    scores = scores or scoreboard.of(table, correlations)
    drawn = [*figures.pictures(table, correlations), *scores.pictures()]
    page = render(folder, table, correlations, drawn, scores)
    for picture in drawn:
        with writing(folder / "figures", folder):
            picture.save(folder / "figures")
    with writing(folder / "correlations.csv", folder):
        csv.write_csv(correlations, folder / "correlations.csv")
    with writing(folder / scoreboard.FILE, folder):
        scores.save(folder)
    return save(page, folder)


def save(page: str, folder: Path) -> Path:
    """The page as <folder>/report.html, whole or not at all. Raises UserError if it cannot be written."""
    report = folder / "report.html"
    temporary = report.with_name(".report.html.tmp")
    with writing(report, folder):
        temporary.write_text(page, encoding="utf-8")
        return temporary.replace(report)


@contextmanager
def writing(target: Path, folder: Path) -> Iterator[None]:
    """What stands in the way of a file is one line: the rows are safe, the report can be had later."""
    try:
        yield
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        again = shlex.join(["python", "-m", "raylab.report", str(folder)])
        raise UserError(
            f"Cannot write {target} ({reason}). The rows are kept: clear the way, then `{again}` writes the report."
        ) from error


def correlated(table: pa.Table) -> pa.Table:
    """The correlations of a results table with its target, accuracy or loss; none where nothing was evaluated."""
    target = targets.of(table)
    return correlate(table, target.column) if target else correlate(table, target="seconds", metrics=[])


def template(name: str) -> Template:
    """A page to fill in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("raylab.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["batch_by_size"] = _pairs
    environment.globals |= {"ink": INK, "glyphs": labels.GLYPHS}
    return environment.get_template(name)


def render(
    folder: Path, table: pa.Table, correlations: pa.Table, drawn: list[Picture], scores: scoreboard.Scoreboard
) -> str:
    """The page as text."""
    info = read_run_info(folder)
    experiment = ", ".join(dict.fromkeys(filter(None, frame.texts(table, "experiment")))) or folder.name
    return template("report.html.j2").render(
        experiment=experiment,
        folder=str(folder),
        command=info.get("command", ""),
        digest=info.get("digest", ""),
        config=_flat(info.get("config", {})),
        counts=_counts(table, info),
        findings=[*findings(table, correlations), *scores.findings()],
        missing=_missing(table, drawn),
        shown=[Shown(picture, picture.inline()) for picture in drawn],
        tables=[*_tables(table, correlations), *scores.tables()],
        correlated=correlations.num_rows > 0,
        open_rows=OPEN_ROWS if not spectra.alone(table) else table.num_rows,
        example=_example(table),
        failures=_failures(table, "failed"),
        skips=_failures(table, "skipped"),
        provenance=_provenance(table),
        columns=[(field.name, str(field.type), schema.description(field)) for field in table.schema],
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


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


def _counts(table: pa.Table, info: Mapping[str, Any]) -> dict[str, Any]:
    status = Counter(frame.texts(table, "status"))
    models = len(np.unique(frame.codes(table, *frame.MODEL)))
    planned = int(info.get("planned") or 0)
    return {
        "rows": table.num_rows,
        "ok": status["ok"],
        "failed": status["failed"],
        "skipped": status["skipped"],
        "planned": planned,
        "share": min(1.0, table.num_rows / planned) if planned else 1.0,
        "models": models,
        "layers": len(frame.layers(table)),
        "work": duration(float(np.nansum(frame.floats(table, "seconds")))),
    }


def _example(table: pa.Table) -> str:
    target = targets.of(table)
    return spectra.QUERY if spectra.alone(table) or target is None else EXAMPLE.format(column=target.column)


def _tables(table: pa.Table, correlations: pa.Table) -> list[TextTable]:
    if spectra.alone(table):
        return spectra.tables(table)
    names = list(dict.fromkeys(correlations["condition"].to_pylist()))
    made = [tables.layer_table(table, column) for column in tables.main_columns(table)]
    made += [tables.grouping_table(correlations), tables.metric_table(correlations)]
    made += [tables.metric_table(correlations, "pooled")]
    made += [tables.metric_table(correlations, "mean", name) for name in names if name != "all"]
    made += [tables.layer_table(table, column) for column in tables.other_columns(table)]
    return [each for each in made if each]


def _failures(table: pa.Table, status: str) -> list[dict[str, str]]:
    """The first rows of that status, each kind of error once."""
    bad = table.filter(pa.array(frame.texts(table, "status") == status))
    kinds: dict[str, dict[str, str]] = {}
    columns = ("error", "model", "replicate", "layer", "perturbation", "host")
    for row in zip(*(frame.texts(bad, name) for name in columns), strict=True):
        error, model, replicate, layer, perturbation, host = row
        last = (error.strip().splitlines() or ["no message"])[-1]
        where = f"{model} {replicate}, {layer or 'whole model'}, {perturbation}" + (f", on {host}" if host else "")
        kinds.setdefault(last, {"last": last, "error": error.strip(), "where": where, "count": "0"})
        kinds[last]["count"] = str(int(kinds[last]["count"]) + 1)
    return list(kinds.values())[:ERRORS]


def _missing(table: pa.Table, drawn: list[Picture]) -> list[str]:
    if spectra.alone(table):
        return spectra.missing(drawn)
    names, target = {picture.name for picture in drawn}, targets.of(table)
    what = target.column if target else "accuracy"
    reasons = {
        f"{what}_by_layer": f"{what} by layer (needs perturbed layers that were evaluated)",
        "alpha_by_layer": "alpha by layer (needs alpha of layers)",
        "metrics": f"{what} against the spectral metrics (needs perturbed layers with {what} and metrics)",
        "rho_by_metric": "correlations (need at least four perturbed rows of a layer)",
    }
    if "train_seconds" in table.column_names:  # models that are given are not compared layer by layer
        reasons["similarity"] = "similarity to the unperturbed model (no such column was measured)"
    return [text for name, text in reasons.items() if name not in names]


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
