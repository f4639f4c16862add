"""The one exception that the command line turns into a single line and exit code 2."""


class GCNetError(ValueError):
    """Something the user can put right. The message says what is wrong, where, and what to do."""
