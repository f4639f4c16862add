"""The annotations of a split as a reader gives them, unchecked; and how ids and numbers in them are read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
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
    """What was corrected in a source or left out, by kind."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.kinds: dict[tuple[str, int, str], list[Any]] = {}

    def annotation(self, kind: str, id: Any) -> None:
        """`kind` goes on from "N of M annotations"; what came of it follows a semicolon."""
        self.kinds.setdefault(("annotations", len(self.source.annotations), kind), []).append(f"id {id}")

    def image(self, kind: str, name: Any) -> None:
        self.kinds.setdefault(("images", len(self.source.images), kind), []).append(name)

    def tell(self) -> None:
        """Gives a warning for each kind."""
        for (what, total, kind), found in self.kinds.items():
            problem, outcome = kind.split("; ")
            log.warning(
                "%s: %d of %d %s %s (first: %s); %s",
                self.source.path,
                len(found),
                total,
                what,
                problem,
                shown(found[0], 120),
                outcome,
            )


def whole(value: Any) -> Any:
    """A whole number where `value` is one written as a float; none where it needs more than 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if isinstance(value, int) and not -_WORD <= value < _WORD else value


def digits(value: Any) -> Any:
    """As `whole`, also of text that is nothing but digits."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else whole(value)


def known(id: Any, table: Mapping[Any, Any]) -> Any:
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
