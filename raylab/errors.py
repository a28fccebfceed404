"""The one exception that a person is meant to read, and the words of others in one line."""


class UserError(ValueError):
    """Bad input. Its message is one line that says what to do next; the command ends with exit code 2."""


def first_line(error: BaseException) -> str:
    """What an exception of a library says, cut to one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
