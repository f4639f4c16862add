"""The result of `gcnet.predict`: counts, and the entries of all images, from memory or from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet.errors import GCNetError

if TYPE_CHECKING:
    from gcnet.found import Found
    from gcnet.types import Classification, Detections


@dataclass(frozen=True)
class Counts:
    """The number of images, of those that could not be read, and of objects."""

    images: int = 0
    failed: int = 0
    objects: int = 0


@dataclass(frozen=True)
class Predictions:
    """The results of a call, in the order of the images.

    With a folder, `images` and `results` are read from its files when they are accessed.

    Attributes:
        out: the folder with the results, if one was given.
        counts: the number of images, of failed images, and of objects.
        of_detector: whether the model is a detector, not a classifier.
        found: without `out`, the `Detections` (of an export `Found`, the same as arrays) or `Classification`
            of each image that could be read. With `out` it is empty, because memory must not grow with the
            number of images.
    """

    out: Path | None = None
    counts: Counts = Counts()
    found: Sequence[Detections | Found | Classification] = ()
    of_detector: bool = True
    _files: tuple[str, str] = ("", "")  # in `out`: that of the images, and that of the results
    _held: tuple[list[Any], list[Any]] = field(default=([], []), repr=False)

    @cached_property
    def images(self) -> list[dict[str, Any]]:
        """One entry for each image: `file_name`, and `error` where it could not be read.

        A detector's have `id`, `height`, `width`, the number of `detections` and the name of the `overlay`, a
        classifier's the most probable classes, `predicted`, and their `probabilities`.
        """
        return self._held[0] if self.out is None else _read(self.out, self._files[0])

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """A detector's detections in COCO's results format.

        `image_id` is the image's `id`, `category_id` the 0-based label; `file_name` and `category_name` say
        both in words. Of a classifier there are none. Raises GCNetError where they were not asked for.
        """
        return self._held[1] if self.out is None else _read(self.out, self._files[1])

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The entries of the images that could not be read."""
        return [entry for entry in self.images if "error" in entry]


def _read(folder: Path, name: str) -> list[dict[str, Any]]:
    if not name:
        return []
    try:
        return json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        raise GCNetError(f"there is no {folder / name}: its format was not asked for") from None
