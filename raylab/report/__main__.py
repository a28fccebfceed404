"""`python -m raylab.report RESULTS`: write the report of a results folder anew, also while a run goes on.

Of a folder that holds several results folders: the report of each, and one page over all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raylab.errors import UserError
from raylab.report import html, several


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m raylab.report RESULTS")
        return 0 if {"-h", "--help"} & set(arguments) else 2
    try:
        print(several.write(arguments[0]) if several.holds(arguments[0]) else html.write(arguments[0]))
    except UserError as error:
        print(f"raylab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
