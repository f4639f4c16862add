"""A data set in memory: the entries of one split, and the file or folder that they came from.

Every reader ends in a `DataSet`; training, evaluation and drawing use nothing else. Images are opened only
when they are needed. H x W pixels.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from gcnet.errors import GCNetError
from gcnet.image_files import MAX_PIXELS
from gcnet.ops.decode import read_image
from gcnet.ops.segmentations import Segmentation

MIN_SIDE = 32  # smaller images are left out of training, as upstream does


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object, in pixels of the original image.

    Attributes:
        label: index into the data set's class names.
        box: xyxy as annotated, not clipped to the image.
        segmentation: polygons or RLE; empty if only a box was annotated.
        area: the annotated area, which decides COCO's size class.
        crowd: a region of many objects. Training leaves it out, evaluation ignores detections there.
        usable: whether its box has a pixel each way and lies in the image, and its area is not zero. Other
            objects are neither trained on nor drawn; evaluation counts them, as COCO's own tool does.
        mended: whether the annotated box was clearly wrong and is replaced by that of the outline.
        ignore: training takes it neither for an object nor for background, and evaluation ignores detections
            there, as in a crowd.
    """

    id: int | str
    label: int
    box: tuple[float, float, float, float]
    segmentation: Segmentation
    area: float
    crowd: bool
    usable: bool = True
    mended: bool = False
    ignore: bool = False

    @property
    def learnable(self) -> bool:
        """Whether it is an object to learn: usable, no crowd and not to be ignored."""
        return self.usable and not self.crowd and not self.ignore


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and what is annotated in it. `width` and `height` are the annotations'."""

    id: int | str
    path: Path
    width: int
    height: int
    instances: tuple[Instance, ...]

    def objects(self, *, masks: bool) -> list[Instance]:
        """The objects that a detector learns; with `masks`, only those that have an outline."""
        return [item for item in self.instances if item.learnable and (item.segmentation or not masks)]

    def ignored(self, *, masks: bool, crowds: bool) -> list[Instance]:
        """The objects that a detector learns neither as objects nor as background.

        That is what is marked so, with `crowds` also crowds, and with `masks` objects without an outline.
        """
        return [
            item
            for item in self.instances
            if item.usable and (item.ignore or (crowds if item.crowd else masks and not item.segmentation))
        ]


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image with one class."""

    path: Path
    label: int


Record = TypeVar("Record", ImageRecord, LabelledImage)


@dataclass(frozen=True)
class DataSet(Generic[Record]):
    """The images of one split.

    Attributes:
        source: the file or folder that the annotations came from; messages name it.
        records: one entry for each image: its path, size and annotations.
        class_names: names of the classes, in the order of the labels.
        category_ids: `category_ids[label]` is the id of `class_names[label]` in the source and in results.
        transforms: your own augmentation (`gcnet.data.transforms`): in training, each is called with a
            `Sample` and a NumPy random generator, before the recipe's augmentation.
        max_pixels: larger images are not read.
    """

    source: Path
    records: Sequence[Record]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    transforms: Sequence[Callable[[Any, np.random.Generator], Any]] = ()
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.records)

    @property
    def has_labels(self) -> bool:
        """Whether each image has one class, as for a classifier."""
        return any(isinstance(record, LabelledImage) for record in self.records[:1])

    def read_image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        """The pixels of `records[index]`, in the orientation that was annotated.

        Raises GCNetError where they are not of the annotated size.
        """
        record = self.records[index]
        image = read_image(record.path, max_pixels=self.max_pixels)
        height, width = image.shape[:2]
        if isinstance(record, LabelledImage) or (width, height) == (record.width, record.height):
            return image
        if (height, width) == (record.width, record.height):
            # Many tools annotate the pixels as they are stored, and do not look at the EXIF orientation.
            stored = read_image(record.path, turned=False, max_pixels=self.max_pixels)
            if stored.shape[:2] == (record.height, record.width):
                return stored
        raise GCNetError(
            f"{record.path} is {width}x{height} pixels, but {self.source} says "
            f"{record.width}x{record.height} for image id {record.id}; correct one of them"
        )

    def name(self, index: int) -> str:
        """The path of image `index`, relative to the folder of the annotations."""
        folder = self.source if self.source.is_dir() else self.source.parent
        return Path(os.path.relpath(self.records[index].path, folder)).as_posix()

    def names(self) -> list[str]:
        """The names of all images."""
        return [self.name(index) for index in range(len(self))]


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection: it would look in vain through millions of objects that are just being made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


Part = TypeVar("Part")

WHOLE = "all"  # the name of a set that is not divided into splits
_SPLITS = {"trainval": WHOLE, "train": "train", "val": "valid", "test": "test"}  # how a word begins
_OTHER_WORDS = re.compile(r"val(v|ue|ley|et)|train(s$|ers?$|ees?$)|test(ers?$|imon|icle|ament)")
_DEV = {"dev", "eval", "evaluation"}
_WORD = re.compile("[a-z]+")


def name_splits(root: Path, parts: Sequence[tuple[str, Part]]) -> dict[str, Part]:
    """Those of `parts` that are "train", "valid" (also val2017 or validation), "test", or "all" (trainval).

    `parts` are names and what they stand for; a name begins with the split's word, or else it is in it.
    "all" is taken only where there is no "train", and then "valid", whose images are in it, is not.
    Raises GCNetError where two names claim the same split.
    """
    splits: dict[str, Part] = {}
    for split in ("train", WHOLE, "valid", "test"):
        if (split == WHOLE and "train" in splits) or (split == "valid" and WHOLE in splits):
            continue
        found = [one for one in parts if _split_of(one[0].lower()) == (split, True)]
        found = found or [one for one in parts if split_of(one[0]) == split]
        if split == "valid" and not found:
            found = [one for one in parts if split_of(one[0]) is None and is_dev(one[0])]
        if len(found) > 1:
            first, second = (_place(root, name, part) for name, part in found[:2])
            kind = "sets for training and validation" if split == WHOLE else f"{split} splits"
            raise GCNetError(f"{root} has two {kind}, {first} and {second}; keep one")
        if found:
            splits[split] = found[0][1]
    return splits


def _place(root: Path, name: str, part: object) -> str:
    """Where a file or folder lies, or the name of what is neither."""
    return part.relative_to(root).as_posix() if isinstance(part, Path) and root in part.parents else name


def split_of(name: str) -> str | None:
    """The split that a name has in it, if any."""
    return _split_of(name.lower())[0]


def is_dev(name: str) -> bool:
    """Whether a name has the word dev or eval in it, which is for validation where nothing else is."""
    return not _DEV.isdisjoint(_WORD.findall(name.lower()))


def _split_of(name: str) -> tuple[str | None, bool]:
    """The split of the first word that is one, and whether the name begins with it."""
    for word in _WORD.finditer(name):
        split = next((split for begin, split in _SPLITS.items() if word[0].startswith(begin)), None)
        if split and not _OTHER_WORDS.match(word[0]):
            return split, word.start() == 0
    return None, False


def pick_split(root: str | Path, splits: Mapping[str, Part], split: str) -> Part:
    """One split of `root`. Raises GCNetError if it does not exist."""
    if split not in splits:
        raise GCNetError(f"{root} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split]
