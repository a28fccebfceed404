"""The one exception that a person is meant to read, and the words of others in one line. Neither holds a secret."""

import os
import socket
import traceback

from raylab import redact

LOGS = "logs"  # folder of a results folder, with a file a process
# beginnings of an error's last line: where to look
LOG_OF, LOGS_OF = "Log of its worker, in the results folder: ", "Logs of the workers, in the results folder: "


class UserError(ValueError):
    """Bad input. Its message is one line that says what to do next; the command ends with exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(redact.text(message))


def first_line(error: BaseException) -> str:
    """What an exception of a library says, cut to one line."""
    lines = redact.text(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def last_line(error: str) -> str:
    """What an error ends with, the exception of a traceback, without the line that says where the log is."""
    lines = [line for line in error.strip().splitlines() if not line.startswith((LOG_OF, LOGS_OF))]
    return lines[-1].strip() if lines else ""


def what_happened(error: BaseException) -> str:
    """The traceback of an exception, and which file of the results has the log of this process."""
    text = "".join(traceback.format_exception(error))
    return f"{text}{LOG_OF}{LOGS}/{socket.gethostname()}-{os.getpid()}.log\n"
