"""The formats and files that a prediction writes, checked before anything slow is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gcnet.console import did_you_mean, shown
from gcnet.errors import GCNetError, check_least, needs

FORMATS = ("coco", "coco-results", "csv", "jsonl", "labelme", "parquet", "yolo")
OF_CLASSIFIERS = ("csv", "jsonl", "parquet")
AN_IMAGE = ("labelme", "yolo")  # a file for each image


@dataclass(frozen=True)
class Wanted:
    """The files that a call writes; see `gcnet.predict`.

    `shard` is this call's part of the images and the number of parts, of which the first is 0.
    Raises GCNetError for words and numbers that make no sense, and for a format whose package is missing.
    """

    formats: tuple[str, ...] = ()
    overlays: bool = True
    crops: bool = False
    cutouts: bool = False
    images_a_file: int = 10_000
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        for word in self.formats:
            if word not in FORMATS:
                hint = did_you_mean(word, FORMATS, f"there are {', '.join(FORMATS)}")
                raise GCNetError(f"no format {word!r}; {hint}")
        if "parquet" in self.formats:
            needs("pyarrow", "parquet")
        check_least(1, images_a_file=self.images_a_file)
        index, count = self.shard
        if not 0 <= index < count:
            raise GCNetError(f"there is no shard {index}/{count}: the first of N is 0/N, the last N-1/N")

    def check_model(self, spec: Any, *, is_detector: bool) -> None:
        """Raises GCNetError for files that the model has no results for."""
        if not is_detector:
            others = [word for word in self.formats if word not in OF_CLASSIFIERS]
            others += [word for word in ("crops", "cutouts") if getattr(self, word)]
            if others:
                raise GCNetError(
                    f"{spec.name} is an image classifier and finds no objects: leave out {', '.join(others)}"
                )
        elif self.cutouts and not spec.roi.masks:
            raise GCNetError(f"{spec.name} finds boxes alone: --crops in place of --cutouts")

    @property
    def beside(self) -> tuple[str, ...]:
        """The kinds of files that are written for each image."""
        pictures = [word for word in ("crops", "cutouts") if getattr(self, word)]
        return (*pictures, *(word for word in AN_IMAGE if word in self.formats))


def parse_shard(word: str) -> tuple[int, int]:
    """The numbers in `0/4`. Raises GCNetError for another form."""
    if not re.fullmatch(r"\d{1,9}/\d{1,9}", word):
        raise GCNetError(f"give 0/4 for the first of four parts, 3/4 for the last, not {shown(word)}")
    index, _, count = word.partition("/")
    return int(index), int(count)
