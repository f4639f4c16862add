"""The annotations of a split as a reader gives them, unchecked; and how ids and numbers in them are read."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
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

    @classmethod
    def of_names(
        cls,
        path: Path,
        image_dir: Path,
        images: list[dict[str, Any]],
        annotations: list[dict[str, Any]],
        listed: Sequence[str] = (),
    ) -> Source:
        """A source whose annotations have names for `category_id`: the classes are those met or `listed`.

        What has an empty name gets the only one there is; beside several classes it is left out.
        """
        names = {*listed, *(annotation["category_id"] for annotation in annotations)} - {""}
        if bare := [annotation for annotation in annotations if not annotation["category_id"]]:
            only = "" if len(names) > 1 else next(iter(names), "object")
            outcome = f"taken for {shown(only)}" if only else "left out"
            log.warning("%s: %d of %d objects have no class; %s", path, len(bare), len(annotations), outcome)
            for annotation in bare:
                annotation["category_id"] = only
            annotations = [annotation for annotation in annotations if annotation["category_id"]]
            names = names or {only}
        ids = {name: id for id, name in enumerate(sorted(names), start=1)}
        for annotation in annotations:
            annotation["category_id"] = ids[annotation["category_id"]]
        categories: list[dict[str, Any]] = [{"id": id, "name": name} for name, id in ids.items()]
        return cls(path, image_dir, images, annotations, categories, met=True)


class Entries:
    """The images and objects of a split in the order in which a reader meets them."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.objects: list[dict[str, Any]] = []
        self.ids: Counter[str] = Counter()

    def add_image(self, file_name: Any, width: Any = None, height: Any = None) -> None:
        """The next image; its own size is taken where none is given."""
        size = {"width": width, "height": height}
        self.images.append({"id": len(self.images) + 1, "file_name": file_name, **size})

    def add_object(self, id: str, name: str, drawn: Mapping[str, Any]) -> None:
        """An object of the last image, of the class `name`, which may be empty.

        `id` tells people which it is; files of one name in several folders give several the same.
        `drawn` has its `bbox`, its `segmentation` or both, and what else COCO says of objects.
        """
        self.ids[id] += 1
        id += f" ({self.ids[id]})" if self.ids[id] > 1 else ""
        self.objects.append({"id": id, "image_id": len(self.images), "category_id": name, **drawn})

    def source(self, path: Path, image_dir: Path, listed: Sequence[str] = ()) -> Source:
        """All of them, as `Source.of_names` takes them."""
        return Source.of_names(path, image_dir, self.images, self.objects, listed)


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
