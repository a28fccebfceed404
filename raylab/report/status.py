"""`python -m raylab.status RESULTS [...]`: is it running, how far is it, what went wrong last. From any machine.

Exit code: 0 finished, all rows ok; 1 finished, some row failed; 2 bad input; 3 running; 4 unfinished, and nobody at
work on it. Of several folders the one that most needs somebody: 4 before 3 before 1 before 0.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raylab.arguments import Parser
from raylab.errors import UserError
from raylab.places import UnreachableError
from raylab.report.progress import duration, pace
from raylab.results.heartbeat import REFUSED
from raylab.results.status import DEAD, DONE, FAILED, NOBODY, RUNNING, Status, Watcher
from raylab.results.text import TextTable

EXIT = {DONE: 0, FAILED: 1, RUNNING: 3, **dict.fromkeys(NOBODY, 4)}
STYLES = {DONE: "bold green", FAILED: "bold red", RUNNING: "bold cyan", **dict.fromkeys(NOBODY, "bold yellow")}
EVERY = 2.0  # seconds between two looks of --watch


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    given = _parser().parse_args(arguments)
    watcher = Watcher(given.results)
    try:
        found = _watch(watcher, given.format) if given.watch else _look(watcher)
    except UserError as error:
        print(f"raylab.status: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if given.format == "json":
        _print_json(found)
    elif not given.watch:
        Console().print(shown(found))
    return max(EXIT[status.state] for status in found)


def _parser() -> Parser:
    parser = Parser("python -m raylab.status", __doc__)
    parser.add_argument("results", metavar="RESULTS", nargs="+", help="results folder of a run, such as results/digits")
    parser.add_argument("--watch", action="store_true", help="look again and again, until none is running")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: a list, an object a folder")
    return parser


def _look(watcher: Watcher) -> list[Status]:
    """Once. On S3 a driver that died is known to be silent after most of a minute only: a terminal says so."""
    with Console(stderr=True).status("listening for a sign of life"):
        return watcher.look()


def _watch(watcher: Watcher, form: str) -> list[Status]:
    """Until none is running. On a terminal in one place; elsewhere, and as JSON, anew each time."""
    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        looks = _looks(watcher, console if form == "text" else Console(stderr=True))
        while True:
            found = next(looks)
            running = any(status.state == RUNNING for status in found)
            if form == "json":
                if running:
                    _print_json(found)
            elif console.is_terminal or not running:
                live.update(shown(found), refresh=True)
            else:
                console.print(shown(found))
            if not running:
                return found
            time.sleep(EVERY)


def _looks(watcher: Watcher, console: Console) -> Iterator[list[Status]]:
    """How they stand, again and again. A place that is out of reach after the first look is waited for, as a run does.

    The first is not: it may be a mistake in a name.
    """
    yield watcher.look()
    away = False
    while True:
        try:
            found = watcher.look()
        except UnreachableError as error:
            if not away:
                _say(console, f"{error}\nWatching on: the last that was seen stays until there is an answer.")
            away = True
            time.sleep(EVERY)
            continue
        if away:
            _say(console, "There is an answer again.")
        away = False
        yield found


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _print_json(found: Sequence[Status]) -> None:
    print(json.dumps([asdict(status) for status in found], ensure_ascii=False), flush=True)


def shown(found: Sequence[Status]) -> RenderableType:
    """One folder in full, several as a table."""
    return _in_full(found[0]) if len(found) == 1 else _table(found)


def _in_full(status: Status) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in _told(status):
        if value:
            lines.add_row(name, value if isinstance(value, Text) else Text(value))
    head = Text.assemble((status.folder, "bold"), "  ", (status.state, STYLES[status.state]), _how(status))
    if not status.planned:
        return Group(head, lines)
    bar = Table.grid()  # which ends its line
    bar.add_row(ProgressBar(total=status.planned, completed=min(status.done + status.failed, status.planned), width=50))
    return Group(head, bar, lines)


def _how(status: Status) -> str:
    """What a state alone does not say."""
    if status.state == DEAD:
        return ": its driver did not end, and does not beat any more"
    return f": {status.ended}" if status.state in NOBODY and status.ended else ""


def _told(status: Status) -> list[tuple[str, str | Text]]:
    running = status.state == RUNNING
    failed = Text(f", {status.failed:,} failed", style="bold red") if status.failed else Text("")
    driver = f"{status.host}, process {status.pid}" if status.host else ""
    workers = f", {status.workers} worker{'s' * (status.workers > 1)}" if status.workers else ""
    last, error = status.last_row, status.last_error
    return [
        ("Trials", Text(_trials(status)) + failed),
        ("Rate", f"{pace(status.rate)}{workers}" if status.rate is not None and status.elapsed else ""),
        ("Damaged", _damaged(status)),
        ("To go", f"about {duration(status.remaining)}" if running and status.remaining else ""),
        ("Driver", driver),
        ("Since", _since(status)),
        ("Last row", f"{last['at'][:19].replace('T', ' ')} UTC: {last['trial']}, {last['status']}" if last else ""),
        ("Refused", (status.reason or "") if status.state in NOBODY else ""),
        ("Last error", f"{error['trial']}: {error['error']}" if error else ""),
        (_what_command(status), status.command or ""),
    ]


def _what_command(status: Status) -> str:
    if status.state not in (*NOBODY, FAILED):
        return "Command"
    return "Once mended" if status.ended == REFUSED else "Go on"


def _damaged(status: Status) -> Text:
    """The parts by name; the next run says what becomes of each."""
    if not status.damaged:
        return Text("")
    return Text(f"{', '.join(status.damaged)}: the next run works these trials again", style="bold red")


def _trials(status: Status) -> str:
    if not status.planned:
        return f"{status.done:,}"
    return f"{status.done:,} of {status.planned:,} done ({(status.done + status.failed) / status.planned:.0%})"


def _since(status: Status) -> str:
    if not status.started_at:
        return ""
    at = status.started_at[:19].replace("T", " ") + " UTC"
    return f"{at}, {duration(status.elapsed)} of work" if status.elapsed else at


def _table(found: Sequence[Status]) -> TextTable:
    header = ["results", "state", "done", "failed", "of", "%", "to go", "host"]
    rows = [
        [
            status.folder,
            status.state,
            f"{status.done:,}",
            f"{status.failed:,}",
            f"{status.planned:,}" if status.planned else "–",
            f"{100 * (status.done + status.failed) / status.planned:.0f}" if status.planned else "–",
            duration(status.remaining) if status.remaining is not None else "–",
            status.host or "–",
        ]
        for status in found
    ]
    errors = [status.last_error["error"] if status.last_error else "" for status in found]
    if any(errors):
        header = [*header, "last error"]
        rows = [[*row, error] for row, error in zip(rows, errors, strict=True)]
    return TextTable("", header, rows, texts=(0, 1, 7, 8))
