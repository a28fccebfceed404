"""The words of a command that takes options: what is wrong with them is one line, as all bad input."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse with help as it is written, no abbreviations, and one line and exit code 2 for words it cannot use."""

    def __init__(self, prog: str, description: str | None, epilog: str | None = None) -> None:
        as_written = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, None, description, epilog, formatter_class=as_written, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """What argparse found, without its usage, which is several lines."""
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}; --help shows what there is.\n")
