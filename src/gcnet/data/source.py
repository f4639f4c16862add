"""The annotations of a split as a reader gives them, unchecked; and how ids and numbers in them are read."""

from __future__ import annotations

import logging
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnet.console import shown

log = logging.getLogger(__name__)

_WORD = 1 << 63  # ids are kept in 64 bits


@dataclass(frozen=True)
class Source:
    """One split as annotated: entries with the fields of COCO, unchecked.

    Attributes:
        path: the file or folder that messages name.
        image_dir: where the images are; their `file_name` is seen from here.
        images: `id`, `file_name`, and `width` and `height` unless the image's own are to be taken.
        annotations: `image_id`, `category_id`, and `bbox`, `segmentation` or both.
        categories: `id` and `name`.
        within: folders that images are read from, beside `image_dir`: a file may name what lies elsewhere.
        met: whether `categories` are those met in this split, and listed nowhere: others may have more.
    """

    path: Path
    image_dir: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    within: tuple[Path, ...] = ()
    met: bool = False


class Notes:
    """What was corrected in a source or left out, by kind, which goes on as `warn_of_some` takes it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._found: dict[tuple[int, str], list[str]] = {}

    def annotation(self, kind: str, id: Any) -> None:
        self._found.setdefault((len(self.source.annotations), f"annotations {kind}"), []).append(f"id {id}")

    def image(self, kind: str, name: str) -> None:
        self._found.setdefault((len(self.source.images), f"images {kind}"), []).append(name)

    def tell(self) -> None:
        """Gives a warning for each kind."""
        for (total, kind), found in self._found.items():
            warn_of_some(self.source.path, found, total, kind)


def warn(place: str | Path, words: str) -> None:
    """Warns of something in a file or folder."""
    log.warning("%s: %s", place, words)


def warn_of_some(place: Path, found: Sequence[str | Path], total: int, kind: str) -> None:
    """Warns of what is `found`, of `total`, and names the first; silent of nothing.

    Files are in the folder `place`. `kind` goes on from "N of M"; what came of it may follow a semicolon.
    """
    if found:
        problem, semicolon, outcome = kind.partition(";")
        first = found[0] if isinstance(found[0], str) else found[0].relative_to(place).as_posix()
        named = f"(first: {shown(first, 120)}){semicolon}{outcome}"
        warn(place, f"{len(found)} of {total} {problem} {named}")


def whole(value: Any) -> Any:
    """A whole number where `value` is one written as a float; none where it needs more than 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if isinstance(value, int) and not -_WORD <= value < _WORD else value


def digits(value: Any) -> Any:
    """As `whole`, also of text that is nothing but digits."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else whole(value)


def known(id: Any, table: Container[Any]) -> Any:
    """The key of `table` that `id` means: 1, 1.0 and "1" are the same where only one is there."""
    if not isinstance(id, (int, float, str)):
        return None
    if type(id) is int and id in table:
        return id
    return next((form for form in (whole(id), digits(id), str(whole(id))) if form in table), None)


def number(value: Any) -> float:
    """A finite number, also one written as text; else NaN."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return found if math.isfinite(found) else math.nan
