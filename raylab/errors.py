"""The one exception that a person is meant to read, and the words of others in one line. Neither holds a secret."""

import os
import socket
import traceback

from raylab import redact

LOGS = "logs"  # folder of a results folder, with a file a process


class UserError(ValueError):
    """Bad input. Its message is one line that says what to do next; the command ends with exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(redact.text(message))


def first_line(error: BaseException) -> str:
    """What an exception of a library says, cut to one line."""
    lines = redact.text(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def what_happened(error: BaseException) -> str:
    """The traceback of an exception, and which file of the results has the log of this process."""
    text = "".join(traceback.format_exception(error))
    return f"{text}Log of its worker: {LOGS}/{socket.gethostname()}-{os.getpid()}.log\n"
