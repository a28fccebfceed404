"""What the commands that fill a results folder share: how they are started, refused, recorded, ended."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from raylab import config as configuration
from raylab import places, redact
from raylab.cluster import provenance
from raylab.config import ClusterConfig, Config
from raylab.errors import UserError
from raylab.interrupts import Interrupts, end_without_threads
from raylab.places import Place
from raylab.report import progress, tables
from raylab.results import estimate, load, parts, read_run_info, sink
from raylab.results import schema as schemas
from raylab.results.text import TextTable
from raylab.types import Experiment, Trial

EXIT_OK, EXIT_FAILED_ROWS, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130
CONFIG_DIR = "--config-dir"
FLUSH_ROWS, FLUSH_SECONDS = 1000, 2.0  # a kill -9 costs at most so many rows, which are then run again


def main(
    module: str,
    argv: Sequence[str] | None,
    usage: Callable[[], str],
    go: Callable[[list[str], str | None, str, Interrupts], int],
) -> int:
    """A command, whatever becomes of it. Returns its exit code.

    go: takes the overrides, the folder of --config-dir, the command as it can be typed again, and what interrupts it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return EXIT_OK
    # A console script does not put the working directory on the path, `python -m` does: my_lab.py is found from both.
    sys.path[:] = dict.fromkeys([str(Path.cwd()), *sys.path])
    typed = redact.text(command(module, *arguments))
    interrupts = Interrupts(lambda: _say_how_to_go_on(typed, interrupts.lost()), places.haste.begin)
    try:
        with interrupts.handled():
            return go(*read(arguments), typed, interrupts)
    except UserError as error:
        if isinstance(error, places.UnreachableError) and places.haste.is_on():  # met on the way out
            return _interrupted(typed, interrupts)
        print(f"raylab: {error}", file=sys.stderr)
        if lost := interrupts.lost():
            print(f"raylab: {lost}.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return _interrupted(typed, interrupts)
    except Exception:  # a mistake in raylab: what Python would print, without the secrets that an error may hold
        print(redact.text(traceback.format_exc()), end="", file=sys.stderr)
        return EXIT_FAILED_ROWS
    finally:
        places.haste.end()


def _interrupted(typed: str, interrupts: Interrupts) -> int:
    _say_how_to_go_on(typed, interrupts.lost())
    end_without_threads()
    return EXIT_INTERRUPTED


def _say_how_to_go_on(typed: str, lost: str | None) -> None:
    kept = f"{redact.text(lost)}. All others are kept" if lost else "Finished trials are kept"
    print(f"\nInterrupted. {kept}; the same command goes on from here:", file=sys.stderr)
    print(f"  {typed}", file=sys.stderr, flush=True)


def command(module: str, *arguments: str) -> str:
    """A command to type, as this one was started."""
    prefix = ["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []
    return shlex.join([*prefix, "python", "-m", module, *arguments])


def asking(folder: object, query: str) -> str:
    """The command that asks for rows. SQL has its texts in single quotes, so it stands in double ones where it may."""
    sql = " ".join(query.split())
    if set(sql) & set('"$`\\!'):  # a shell would take these within double quotes
        return command("raylab.query", str(folder), sql)
    return f'{command("raylab.query", str(folder))} "{sql}"'


def read(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """The overrides among the words of a command, and the folder of --config-dir."""
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
    return overrides, extra


def refuse_another_study(folder: Place, settings: dict[str, Any], identity: dict[str, str]) -> None:
    """Rows of two studies in one folder could not be told apart by who reads them."""
    folder.check()
    before = read_run_info(folder)
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
    _refuse_overlap(folder, settings)


def _refuse_overlap(folder: Place, settings: dict[str, Any]) -> None:
    """Ranges of alpha that overlap share models, and a model that is trained has rows of one range only.

    Where ranges are searched, the folder has those of all samples, and the settings one of them.
    """
    searched = settings.get("tune", {}).get("space") or {}
    if settings["kind"] != "alpha_fixed" or "ranges" in searched or not parts.names(folder):
        return
    there = load(folder, ["alpha_range"])
    known = there.column("alpha_range").unique().to_pylist() if there.num_columns else []
    for one in filter(None, known):
        low, high = (float(end) for end in one.strip("[]").split(","))
        for least, most in settings["ranges"]:
            within = f"[{least:g}, {most:g}]"  # as rows have it, where more digits are gone
            if within != one and low < most and least < high:
                raise UserError(
                    f"{folder} has models with alpha in {one}, some of which are in {within} as well: "
                    "give a range that does not overlap, or results=ANOTHER_FOLDER."
                )


def plan_table(
    experiment: Experiment, trials: Sequence[Trial], status: Mapping[str, str], means: estimate.Means, folder: Place
) -> TextTable:
    """What is done and what is to do, as a table. status, means: of the rows that the folder has."""
    done = {trial for trial, outcome in status.items() if outcome in sink.DONE}
    pending = [trial for trial in trials if trial.id not in done]
    work = {**experiment.work(pending), **work_left(means, pending)}
    plan = tables.Plan(
        trials=trials,
        done=done,
        failed=status.keys() - done,
        skipped=experiment.skipped,
        work={**work, "results": str(folder)},
    )
    return tables.plan_table(plan)


def say_set_aside(console: Console, rows: sink.ParquetSink) -> None:
    """What was found damaged as the results were opened."""
    for line in rows.set_aside:
        console.print(f"[bold red]Set aside[/] {line}", highlight=False, soft_wrap=True)


def work_left(means: estimate.Means, pending: Sequence[Trial]) -> dict[str, str]:
    """A note for the plan: seconds of work, by rows of earlier runs; nothing where there are none."""
    found = estimate.left(means, pending)
    if found is None:
        return {}
    rows = f"{found.rows:,} rows" if found.rows > 1 else "the one row"
    return {"left": f"about {progress.duration(found.seconds)} of work, by the seconds of {rows} already there"}


def ray_begins(cluster: ClusterConfig) -> str:
    """What is waited for first."""
    return "starting Ray" if cluster.address == "local" else f"joining the Ray cluster at '{cluster.address}'"


def schema(columns: Mapping[str, type]) -> pa.Schema:
    """The schema of rows with an experiment's columns. Raises UserError for one that every row has already."""
    ours = {**schemas.IDENTITY, **schemas.OUTCOME, **schemas.PROVENANCE}.keys() - {"device"}
    if taken := ours & columns.keys():
        raise UserError(f"A metric gives the column '{min(taken)}', which every row has already: rename it.")
    return schemas.schema(columns)


def run_info(settings: dict[str, Any], identity: dict[str, str], typed: str, planned: int) -> dict[str, Any]:
    """What run.json keeps. typed: the command."""
    return {
        "config": settings,
        "identity": identity,
        "digest": configuration.answer_digest(settings, identity),
        "command": typed,
        "code": provenance.code_version(),
        "versions": provenance.library_versions(),
        "planned": planned,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def common(info: dict[str, Any]) -> dict[str, Any]:
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


def farewell(
    console: Console, config: Config, first_error: str | None, shown: Sequence[TextTable] = (), query: str = ""
) -> int:
    """What came out, where it is, and what to type next; writes the report. Returns the exit code.

    shown: in place of the tables by layer; query: in place of the one that they suggest.
    """
    from raylab.report import html, views

    folder = places.at(config.results)
    view = views.of(places.patiently(lambda: load(folder)))
    for table in shown or view.summary():
        console.print(table)
    if not shown:
        for finding in view.findings():
            console.print(f"- {finding}", highlight=False, markup=False)
        console.print()
    typed = asking(folder, query or view.query)
    later = command("raylab.report", str(folder))
    report = places.patiently(lambda: html.write(folder, view)) if config.report else later
    console.print(f"[bold]Report[/]  {report}", highlight=False, soft_wrap=True)
    console.print(f"[bold]Next[/]    {typed}", highlight=False, soft_wrap=True)
    if first_error is None:
        return EXIT_OK
    console.print("[bold red]Some rows failed.[/] The same command tries them again. The first error:")
    console.print(redact.text(first_error).rstrip(), highlight=False, markup=False, soft_wrap=True)
    return EXIT_FAILED_ROWS
