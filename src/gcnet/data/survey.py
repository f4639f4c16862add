"""Counts and sizes of what is in a data set, from its annotations alone: no image is opened.

N objects of all splits together, M images, K classes, S splits. A side is the square root of an area [px].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gcnet.data.dataset import MIN_SIDE, DataSet, ImageRecord
from gcnet.ops.segmentations import outline_bounds

# (long, short) sides that images can be fitted in: the tiny models' own, the published models', and others.
LIMITS = ((256, 192), (512, 384), (800, 600), (1333, 800), (2000, 1200))
USUAL = (1333, 800)
TINY, SMALL = 8, 16  # sides as the network sees them: of 2 and 4 positions of its finest map
SMALL_SHARE = 0.05  # of the objects that may come out small where a size is suggested


@dataclass(frozen=True)
class Objects:
    """The objects that can be learnt, a row for each: usable, no crowd, not ignored.

    `split` counts splits, `image` the images of that split, `place` the instances of that image. `box` is
    xyxy in an image of `size` (height, width); `bounds` is the box around the outline, NaN without one;
    `mended` says whether the annotated box was another thing's, so that it is the outline's now.
    """

    split: Int[np.ndarray, " N"]
    image: Int[np.ndarray, " N"]
    place: Int[np.ndarray, " N"]
    label: Int[np.ndarray, " N"]
    box: Float[np.ndarray, "N 4"]
    bounds: Float[np.ndarray, "N 4"]
    size: Int[np.ndarray, "N 2"]
    mended: Bool[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def side(self) -> Float[np.ndarray, " N"]:
        return np.sqrt((self.box[:, 2:] - self.box[:, :2]).prod(1))

    def side_in(self, limits: tuple[int, int]) -> Float[np.ndarray, " N"]:
        """Sides as the network sees them, with images resized to fit `limits`, a (long, short) side."""
        return self.side * _scale(self.size, limits)


@dataclass(frozen=True)
class SplitCount:
    """Images and objects of a split, and what training leaves out."""

    images: int
    objects: int
    trained_images: int
    empty_images: int  # without an object to learn from
    small_images: int
    crowd: int
    ignored: int
    unusable: int
    without_outline: int


@dataclass(frozen=True)
class Fit:
    """The sizes of objects if images are resized to fit `limits`, a (long, short) side.

    `median` is of their sides [px]; `small` and `tiny` are shares of them; `cost` is in pixels of the
    images, beside the usual 1333 x 800.
    """

    limits: tuple[int, int]
    median: float
    small: float
    tiny: float
    cost: float


@dataclass(frozen=True)
class Survey:
    """All of it; `suggested` is the smallest of the sizes that leaves few objects small, or the largest."""

    class_names: tuple[str, ...]
    splits: dict[str, SplitCount]
    class_counts: Int[np.ndarray, "K S"]
    image_sizes: Int[np.ndarray, "M 2"]  # height, width
    objects_an_image: Int[np.ndarray, " M"]
    objects: Objects
    fits: tuple[Fit, ...]
    suggested: Fit | None


def survey(splits: Mapping[str, DataSet[ImageRecord]]) -> Survey:
    """Counts what is in all splits, which have the same classes."""
    objects = _columns(splits)
    names = next(iter(splits.values())).class_names
    records = [record for dataset in splits.values() for record in dataset.records]
    counts = np.zeros((len(names), len(splits)), int)
    np.add.at(counts, (objects.label, objects.split), 1)
    sizes = np.array([(record.height, record.width) for record in records], int).reshape(-1, 2)
    fits = tuple(_fit(objects, sizes, limits) for limits in LIMITS) if len(objects) else ()
    fine = [fit for fit in fits if fit.small <= SMALL_SHARE]
    return Survey(
        class_names=names,
        splits={name: _count(dataset) for name, dataset in splits.items()},
        class_counts=counts,
        image_sizes=sizes,
        objects_an_image=np.array([len(record.objects(masks=False)) for record in records], int),
        objects=objects,
        fits=fits,
        suggested=next(iter(fine or fits[-1:]), None),
    )


def _columns(splits: Mapping[str, DataSet[ImageRecord]]) -> Objects:
    rows = [
        (number, index, place, item, record)
        for number, dataset in enumerate(splits.values())
        for index, record in enumerate(dataset.records)
        for place, item in enumerate(record.instances)
        if item.learnable
    ]
    items, records = [row[3] for row in rows], [row[4] for row in rows]
    split, image, place = np.array([row[:3] for row in rows], int).reshape(-1, 3).T
    return Objects(
        split,
        image,
        place,
        label=np.array([item.label for item in items], int),
        box=np.array([item.box for item in items], float).reshape(-1, 4),
        bounds=outline_bounds([item.segmentation for item in items]),
        size=np.array([(record.height, record.width) for record in records], int).reshape(-1, 2),
        mended=np.array([item.mended for item in items], bool),
    )


def _count(dataset: DataSet[ImageRecord]) -> SplitCount:
    instances = [item for record in dataset.records for item in record.instances]
    empty = [not record.objects(masks=False) for record in dataset.records]
    small = [min(record.width, record.height) < MIN_SIDE for record in dataset.records]
    return SplitCount(
        images=len(dataset.records),
        objects=len(instances),
        trained_images=sum(not (a or b) for a, b in zip(empty, small, strict=True)),
        empty_images=sum(empty),
        small_images=sum(small),
        crowd=sum(item.crowd for item in instances),
        ignored=sum(item.ignore for item in instances),
        unusable=sum(not item.usable for item in instances),
        without_outline=sum(not item.segmentation for item in instances),
    )


def _scale(size: Int[np.ndarray, "N 2"], limits: tuple[int, int]) -> Float[np.ndarray, " N"]:
    """The factor by which images of `size` are resized, as in `gcnet.ops.images.fit_size`."""
    return np.minimum(max(limits) / size.max(1), min(limits) / size.min(1))


def _fit(objects: Objects, sizes: Int[np.ndarray, "M 2"], limits: tuple[int, int]) -> Fit:
    sides = objects.side_in(limits)
    pixels, usual = (float((sizes.prod(1) * _scale(sizes, each) ** 2).mean()) for each in (limits, USUAL))
    small, tiny = float((sides < SMALL).mean()), float((sides < TINY).mean())
    return Fit(limits, float(np.median(sides)), small, tiny, pixels / usual)
