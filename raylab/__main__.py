"""`raylab COMMAND`, or `python -m raylab COMMAND`: one word before each of the commands.

raylab analyze MODEL        the spectral metrics of one model on the terminal
raylab run KEY=VALUE ...    an experiment, with a results folder and a report (`run` may be left out)
raylab tune KEY=SWEEP ...   a search or sweep with Ray Tune over an experiment that trains
raylab query RESULTS SQL    rows of a results folder
raylab report RESULTS       its report anew
raylab status RESULTS       is it running, how far is it, what failed last
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from raylab.registry import suggest

COMMANDS = {
    "analyze": "raylab.terminal",
    "run": "raylab.run",
    "tune": "raylab.tune",
    "query": "raylab.results.query",
    "report": "raylab.report.__main__",
    "status": "raylab.report.status",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if command in COMMANDS:
        return importlib.import_module(COMMANDS[command]).main(arguments[1:])
    if "=" in command or command.startswith("-"):
        return importlib.import_module(COMMANDS["run"]).main(arguments)
    print(f"raylab: Unknown command '{command}'.{suggest(command, COMMANDS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
