"""The one exception that a person is meant to read."""


class UserError(ValueError):
    """Bad input. Its message is one line that says what to do next; the command ends with exit code 2."""
