"""The one exception that the command line turns into a single line and exit code 2."""

import importlib
from types import ModuleType


class GCNetError(ValueError):
    """Something the user can put right. The message says what is wrong, where, and what to do."""


def needs(package: str, extra: str = "") -> ModuleType:
    """Imports an optional package. Raises GCNetError, which says what to install, if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        install = f"'gcnet[{extra}]'" if extra else package.partition(".")[0]
        raise GCNetError(f"this needs {package}, which is not installed: pip install {install}") from None


def check_least(least: int, **values: int | None) -> None:
    """Raises GCNetError if a value is less than `least`; None passes."""
    for name, value in values.items():
        if value is not None and value < least:
            raise GCNetError(f"{name} is {value}; give {least} or more")


def check_threshold(score: float | None) -> None:
    """Raises GCNetError if a score threshold is not in [0, 1]; None passes."""
    if score is not None and not 0 <= score <= 1:
        raise GCNetError(f"score threshold {score} is not in [0, 1]; give a number that is")
