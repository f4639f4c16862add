"""The images and labels that a classifier learns from, in batches of squares of one size.

N images, H x W original image, S side of the square that the network sees, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.data.transforms import Sample, apply, jitter_colors, turns
from gcnet.models.classifier import classifier_batch
from gcnet.ops.images import middle_square, shrink_image
from gcnet.recipe import ClassificationRecipe
from gcnet.types import Batch, ClassTargets

LOG_ASPECTS = math.log(3 / 4), math.log(4 / 3)  # width over height of random crops

Square = tuple[UInt8[np.ndarray, "S S 3"], tuple[int, ...], int | str]  # with the image's size and an id


@dataclass(frozen=True)
class Examples:
    """A data set with the augmentation of a recipe."""

    dataset: DataSet[LabelledImage]
    recipe: ClassificationRecipe
    image_size: tuple[int, int]

    def read(self, index: int, rng: np.random.Generator) -> tuple[Square, int]:
        """A random part of an image, and its label; all random numbers come from `rng`."""
        image, recipe = self.dataset.read_image(index), self.recipe
        sample = apply([*self.dataset.transforms, *turns(recipe)], Sample.without_objects(image), rng)
        square = train_square(sample.image, self.image_size, recipe, rng)
        return (square, image.shape[:2], self.dataset.name(index)), self.dataset.records[index].label

    def join(
        self, samples: Sequence[tuple[Square, int]], rng: np.random.Generator
    ) -> tuple[Batch, ClassTargets]:
        """Images and the shares of their classes, mixed if the recipe says so."""
        squares, labels = zip(*samples, strict=True)
        batch = join_whole(squares)
        shares = class_shares(
            torch.tensor(labels), len(self.dataset.class_names), self.recipe.label_smoothing
        )
        if self.recipe.mixup:
            images, shares = mix(batch.images, shares, float(rng.beta(self.recipe.mixup, self.recipe.mixup)))
            batch = replace(batch, images=images)
        return batch, ClassTargets(shares)


def read_whole(dataset: DataSet[LabelledImage], image_size: tuple[int, int], index: int) -> Square:
    """An image as in evaluation: its middle square, with the index as its id."""
    image = dataset.read_image(index)
    return middle_square(image, image_size), image.shape[:2], index


def join_whole(squares: Sequence[Square]) -> Batch:
    """Squares of one size."""
    return classifier_batch(*zip(*squares, strict=True))


def train_square(
    image: UInt8[np.ndarray, "H W 3"],
    image_size: tuple[int, int],
    recipe: ClassificationRecipe,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "S S 3"]:
    """A random part of the image (arXiv 1409.4842, section 6), perhaps mirrored and recoloured by a recipe.

    The part's share of the area is drawn from `scale_jitter`, its aspect from 3:4 to 4:3; a side that is then
    longer than the image's is cut to it. With `scale_jitter` (1, 1) it is the square of the evaluation.
    All chance comes from `rng`, in the same number of draws whatever the settings.
    """
    share, aspect = rng.uniform(*recipe.scale_jitter), math.exp(rng.uniform(*LOG_ASPECTS))
    across, down, flip_draw = rng.random(3)
    color_draws = rng.uniform(-1, 1, 3)
    if recipe.scale_jitter == (1.0, 1.0):
        square = middle_square(image, image_size)
    else:
        height, width = image.shape[:2]
        w = min(max(round(math.sqrt(height * width * share * aspect)), 1), width)
        h = min(max(round(math.sqrt(height * width * share / aspect)), 1), height)
        left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
        square = shrink_image(image[top : top + h, left : left + w], (image_size[1], image_size[1]))
    if flip_draw < recipe.flip:
        square = cv2.flip(square, 1)
    if recipe.color_jitter:
        square = jitter_colors(square, 1 + recipe.color_jitter * color_draws)
    return square


def class_shares(labels: Int64[Tensor, " N"], classes: int, smoothing: float) -> Float[Tensor, "N K"]:
    """The share of each class: `1 - smoothing` for the label, the rest evenly over all classes.

    (arXiv 1512.00567, section 7.)
    """
    shares = torch.full((len(labels), classes), smoothing / classes)
    return shares.scatter_add(1, labels[:, None], torch.full((len(labels), 1), 1.0 - smoothing))


def mix(
    images: UInt8[Tensor, "N 3 S S"], shares: Float[Tensor, "N K"], weight: float
) -> tuple[UInt8[Tensor, "N 3 S S"], Float[Tensor, "N K"]]:
    """Mixes each image and its shares with those of the image before it (mixup, arXiv 1710.09412).

    `weight` is what it keeps of itself. The order of a batch is random, so its neighbour is a random partner.
    """
    mixed = weight * images.float() + (1 - weight) * images.roll(1, 0).float()
    return mixed.round().to(torch.uint8), weight * shares + (1 - weight) * shares.roll(1, 0)
