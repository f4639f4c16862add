"""The images and objects that a detector learns from, in batches of images padded to one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcnet.data.dataset import MIN_SIDE, DataSet, ImageRecord
from gcnet.data.transforms import Sample, apply, train_transforms
from gcnet.errors import GCNetError
from gcnet.ops.images import Pixels, fit_size, resize_image
from gcnet.recipe import Recipe
from gcnet.types import Batch, Targets, stack_images

Resized = tuple[Pixels, ImageRecord]  # an image as the network sees it


@dataclass(frozen=True)
class Examples:
    """A data set with the augmentation of a recipe. Copy-paste takes objects from images `indices`."""

    dataset: DataSet[ImageRecord]
    recipe: Recipe
    image_size: tuple[int, int]
    masks: bool
    indices: Sequence[int]

    def read(self, index: int, rng: np.random.Generator) -> tuple[Resized, Targets]:
        """An image and its objects after all transforms; all random numbers come from `rng`."""
        recipes = train_transforms(self.recipe, self.image_size, self._another)
        sample = apply([*self.dataset.transforms, *recipes], self._sample(index), rng)
        return (sample.image, self.dataset.records[index]), sample.targets()

    def join(
        self, samples: Sequence[tuple[Resized, Targets]], rng: np.random.Generator
    ) -> tuple[Batch, list[Targets]]:
        images, targets = zip(*samples, strict=True)
        return join_whole(images), list(targets)

    def _sample(self, index: int) -> Sample:
        record = self.dataset.records[index]
        crowds = self.recipe.ignore_crowds
        return Sample.of(self.dataset.read_image(index), record, masks=self.masks, crowds=crowds)

    def _another(self, rng: np.random.Generator) -> Sample:
        return self._sample(self.indices[int(rng.integers(len(self.indices)))])


def read_whole(
    dataset: DataSet[ImageRecord], image_size: tuple[int, int], index: int, *, rule: str = "opencv"
) -> Resized:
    """An image as in evaluation, resized by a `rule` (`resize_image`)."""
    image = dataset.read_image(index)
    return resize_image(image, fit_size(image.shape[:2], image_size, rule), rule), dataset.records[index]


def join_whole(images: Sequence[Resized]) -> Batch:
    """Images, padded to a common size."""
    return Batch(
        images=stack_images([image for image, _ in images]),
        image_sizes=[(image.shape[0], image.shape[1]) for image, _ in images],
        original_sizes=[(record.height, record.width) for _, record in images],
        image_ids=[record.id for _, record in images],
    )


def trainable(dataset: DataSet[ImageRecord], recipe: Recipe, *, masks: bool = True) -> list[int]:
    """Indices of the images that training uses: at least 32 pixels each way, with an object to learn from.

    With `masks`, that is one with an outline. With the recipe's `keep_empty`, images without objects are
    used as well. Raises GCNetError if no image has any.
    """
    large = [i for i, record in enumerate(dataset.records) if min(record.width, record.height) >= MIN_SIDE]
    filled = [i for i in large if dataset.records[i].objects(masks=masks)]
    if not filled:
        raise GCNetError(f"{dataset.source} has {why_nothing(dataset.records)}")
    return large if recipe.keep_empty else filled


def describe_left_out(dataset: DataSet[ImageRecord], recipe: Recipe, masks: bool = True) -> str:
    """A line on images without objects that are left out; empty if there are none."""
    empty = [record for record in dataset.records if not record.objects(masks=masks)]
    if not empty or recipe.keep_empty:
        return ""
    return (
        f"note: {len(empty)} of the {len(dataset)} images have no objects to learn from and are left out; "
        "--keep-empty trains on them too"
    )


def why_nothing(records: Sequence[ImageRecord]) -> str:
    """The error if there are no objects to learn: what there is instead, and what to do."""
    objects = [item for record in records for item in record.instances if item.usable]
    if objects and all(item.crowd for item in objects):
        return (
            f"only objects marked iscrowd, {len(objects)} of them, as CVAT marks masks drawn by its brush; "
            "give --crowd-as-objects true to take them as objects"
        )
    if objects and all(item.crowd or item.ignore for item in objects):
        marks = "`ignore`, difficult or iscrowd"
        return f"only objects marked {marks}, {len(objects)} of them; take the mark off some"
    if objects and not any(item.segmentation for item in objects):
        return (
            "boxes but no outlines; export it for instance segmentation, or train a detector of boxes alone"
        )
    return f"no image with objects to learn from, and {MIN_SIDE} pixels or more; annotate some"
