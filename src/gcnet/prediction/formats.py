"""What was found, in the files that a person asked for: written from the journal, an image at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnet.evaluation.results import ImageResults
from gcnet.files import write_json


@dataclass(frozen=True)
class ImageFound:
    """What came of an image: its entry, and what a detector found where it could be read."""

    entry: dict[str, Any]
    results: ImageResults | None

    @classmethod
    def of(cls, entry: dict[str, Any], found: dict[str, Any] | None) -> ImageFound:
        """Of the plain values in a journal."""
        return cls(entry, None if found is None else ImageResults.from_json(entry["id"], found))


def result_entries(image: ImageFound, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Its detections in COCO's results format, with names beside ids."""
    if image.results is None:
        return []
    file_name = image.entry["file_name"]
    return [
        one | {"file_name": file_name, "category_name": class_names[one["category_id"]]}
        for one in image.results.entries()
    ]


def write_entries(path: Path, images: Iterable[ImageFound]) -> None:
    """The entries of the images."""
    write_json(path, (image.entry for image in images))


def write_coco_results(path: Path, images: Iterable[ImageFound], class_names: Sequence[str]) -> None:
    """All detections in COCO's results format."""

    def entries() -> Iterator[dict[str, Any]]:
        for image in images:
            yield from result_entries(image, class_names)

    write_json(path, entries())
