"""Text for the terminal: shortened lists, forms of values, the nearest known name, tables and a progress bar.

Commands import this first, so it must be quick: rich is loaded on first use.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import FunctionType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from gcnet.errors import GCNetError

if TYPE_CHECKING:
    from rich.progress import Progress, Task
    from rich.table import Table

# How values of a type are written.
FORMS = {bool: "true|false", Path: "PATH", int: "INTEGER", float: "NUMBER", str: "WORD"}


def listed(words: Sequence[str], most: int = 8, separator: str = ", ") -> str:
    """The first `most` words and how many follow: `a, b and 3 more`."""
    left = len(words) - most
    return separator.join(words[:most]) + (f" and {left} more" if left > 0 else "")


def printable(text: str) -> str:
    """The text on one line; control characters and those that cannot be encoded are escaped, as \x1b."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def shown(value: object, most: int = 60) -> str:
    """A value from a file for a message: printable, and cut after `most` characters."""
    text = printable(value if isinstance(value, str) else reprlib.repr(value))
    return text if len(text) <= most else text[: most - 3] + "..."


def one_line(text: str, most: int = 280) -> str:
    """`text` as `printable`, in at most `most` characters: a longer one loses its middle."""
    shown = printable(" ".join(text.split()))
    if len(shown) <= most:
        return shown
    end = most // 3
    return f"{shown[: most - end - 5]} ... {shown[-end:]}"


def form_of(kind: Any) -> str:
    """How the values of a type, or those that a parser reads, are written: INTEGER|auto, [WORD,...]."""
    if isinstance(kind, FunctionType):
        return kind.__name__.strip("_").upper()
    parts = get_args(kind)
    if os.PathLike[str] in parts:
        return "PATH"
    if get_origin(kind) in (Union, UnionType):
        return "|".join(form_of(part) for part in parts if part is not NoneType)
    if get_origin(kind) is tuple:
        return f"[{','.join('...' if part is Ellipsis else form_of(part) for part in parts)}]"
    return FORMS.get(kind) or "|".join(map(str, parts))


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean "x"?` with the nearest of the known words, or `otherwise` if none is near."""
    by_lower_case = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower_case, n=1)
    return f'did you mean "{by_lower_case[near[0]]}"?' if near else otherwise


def check_names(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raises GCNetError if an option is unknown; the message has the nearest known one."""
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise GCNetError(f"there is no option {name!r} of {owner}; {hint}")


def make_table(
    title: str | None,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    *,
    words: int = 1,
    width: int | None = None,
) -> Table:
    """A table for the terminal: `words` columns of text, cut to `width`, and then numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(heads):
        if place < words:
            table.add_column(head, max_width=width, no_wrap=True, overflow="ellipsis")
        else:
            table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*map(Text, row))  # as markup `bolt [m8]` would lose what is in brackets
    return table


def progress_bar(
    *, disable: bool = False, transient: bool = False, of_bytes: bool = False, rate: str = ""
) -> Progress:
    """A bar with amount, time taken and time left; on stderr, so that stdout stays clean.

    Args:
        disable: show nothing.
        transient: gone when the work is done.
        of_bytes: amounts are bytes, and are shown with their rate.
        rate: what is counted, such as "images", where how many are done in a second is shown.
    """
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    class Rate(rich.ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} {rate}/s" if rate and task.speed else "")

    amounts = (
        (rich.DownloadColumn(), rich.TransferSpeedColumn())
        if of_bytes
        else (rich.MofNCompleteColumn(), *([Rate()] if rate else []))
    )
    return rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        *amounts,
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=disable,
        transient=transient,
    )
