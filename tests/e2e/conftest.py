import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raylab.run import main
from tests.e2e import commands

sys.path.insert(0, str(Path(__file__).parents[1]))  # made_up.py


@pytest.fixture
def here(monkeypatch, capsys) -> Callable[..., commands.Ended]:
    """`raylab.run` in this process, in a folder. A module that lies there is imported anew each time.

    Another process would import torch and all else for five to ten seconds of a core.
    """

    def call(folder: Path, *arguments: str) -> commands.Ended:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "path", [*sys.path])  # the command puts its folder there
            before = set(sys.modules)
            capsys.readouterr()
            code = main(arguments)
            for name in set(sys.modules) - before:
                if folder in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
                    del sys.modules[name]
            said = capsys.readouterr()
            return code, said.out, said.err

    return call
