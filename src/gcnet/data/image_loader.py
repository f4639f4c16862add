"""Batches of pictures with one class each, for training and evaluation.

As in `gcnet.data.loader`, the training stream is a pure function of (seed, position): order, crops, colours
and mixing depend neither on the number of workers nor on where the run started.
N images, H x W original picture, S side of the square that the network sees, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.data.loader import SAMPLE_STREAM, IterationSampler, Loader
from gcnet.data.transforms import Sample, apply, jitter_colors, turns
from gcnet.models.classifier import classifier_batch
from gcnet.ops.images import middle_square, shrink_image
from gcnet.recipe import ClassificationRecipe
from gcnet.types import Batch, ClassTargets

_MIX = 2  # a stream of random numbers apart from those of the order and the samples
LOG_ASPECTS = math.log(3 / 4), math.log(4 / 3)  # width over height of random crops


def image_train_loader(
    dataset: DataSet[LabelledImage],
    *,
    recipe: ClassificationRecipe,
    image_size: tuple[int, int],
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """An endless stream of (Batch, ClassTargets), beginning at `start_iteration`.

    `rank` and `world_size` are as in `gcnet.data.loader.train_loader`.
    """
    sampler = IterationSampler(
        range(len(dataset)),
        wide=[True] * len(dataset),  # squares all: nothing to sort by shape
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start_iteration=start_iteration,
        rank=rank,
        world_size=world_size,
    )
    read = partial(_read_train, dataset, recipe, image_size)
    collate = partial(_collate_train, recipe=recipe, classes=len(dataset.class_names))
    return Loader(read, len(dataset), collate=collate, workers=recipe.workers, batch_sampler=sampler)


def image_eval_loader(
    dataset: DataSet[LabelledImage],
    batches: Sequence[Sequence[int]],
    *,
    image_size: tuple[int, int],
    workers: int = 2,
) -> Loader:
    """The images of each of `batches` (indices into `dataset`) as a Batch with the indices as `image_ids`."""
    read = partial(_read_eval, dataset, image_size=image_size)
    return Loader(read, len(dataset), collate=_collate_eval, workers=workers, batch_sampler=batches)


def train_square(
    image: UInt8[np.ndarray, "H W 3"],
    *,
    image_size: tuple[int, int],
    rng: np.random.Generator,
    flip: float = 0.5,
    scale_jitter: tuple[float, float] = (0.08, 1.0),
    color_jitter: float = 0.0,
) -> UInt8[np.ndarray, "S S 3"]:
    """A random part of the picture (arXiv 1409.4842, section 6), perhaps mirrored and recoloured.

    The part's share of the area is drawn from `scale_jitter`, its aspect from 3:4 to 4:3; a side that is then
    longer than the picture's is cut to it. With `scale_jitter` (1, 1) it is the square of the evaluation.
    All chance comes from `rng`, in the same number of draws whatever the settings.
    """
    share, aspect = rng.uniform(*scale_jitter), math.exp(rng.uniform(*LOG_ASPECTS))
    across, down, flip_draw = rng.random(3)
    color_draws = rng.uniform(-1, 1, 3)
    if scale_jitter == (1.0, 1.0):
        square = middle_square(image, image_size)
    else:
        height, width = image.shape[:2]
        w = min(max(round(math.sqrt(height * width * share * aspect)), 1), width)
        h = min(max(round(math.sqrt(height * width * share / aspect)), 1), height)
        left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
        square = shrink_image(image[top : top + h, left : left + w], (image_size[1], image_size[1]))
    if flip_draw < flip:
        square = cv2.flip(square, 1)
    if color_jitter:
        square = jitter_colors(square, 1 + color_jitter * color_draws)
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
    """Each image and its shares, mixed with those of the one before it (mixup, arXiv 1710.09412).

    `weight` is what it keeps of itself. The order of a batch is random, so its neighbour is a random partner.
    """
    mixed = weight * images.float() + (1 - weight) * images.roll(1, 0).float()
    return mixed.round().to(torch.uint8), weight * shares + (1 - weight) * shares.roll(1, 0)


def _read_train(
    dataset: DataSet[LabelledImage],
    recipe: ClassificationRecipe,
    image_size: tuple[int, int],
    key: tuple[int, int],
) -> Any:
    index, position = key
    image = dataset.read_image(index)
    rng = np.random.default_rng([SAMPLE_STREAM, recipe.seed, position])
    sample = apply([*dataset.transforms, *turns(recipe)], Sample.without_objects(image), rng)
    square = train_square(
        sample.image,
        image_size=image_size,
        rng=rng,
        flip=recipe.flip,
        scale_jitter=recipe.scale_jitter,
        color_jitter=recipe.color_jitter,
    )
    return square, image.shape[:2], dataset.name(index), dataset.records[index].label, position


def _read_eval(dataset: DataSet[LabelledImage], index: int, *, image_size: tuple[int, int]) -> Any:
    image = dataset.read_image(index)
    return middle_square(image, image_size), image.shape[:2], index


def _collate_train(
    samples: list[Any], *, recipe: ClassificationRecipe, classes: int
) -> tuple[Batch, ClassTargets]:
    squares, sizes, names, labels, positions = zip(*samples, strict=True)
    batch = classifier_batch(squares, sizes, names)
    shares = class_shares(torch.tensor(labels), classes, recipe.label_smoothing)
    if recipe.mixup:
        rng = np.random.default_rng([_MIX, recipe.seed, positions[0]])
        images, shares = mix(batch.images, shares, float(rng.beta(recipe.mixup, recipe.mixup)))
        batch = replace(batch, images=images)
    return batch, ClassTargets(shares)


def _collate_eval(samples: list[Any]) -> Batch:
    return classifier_batch(*zip(*samples, strict=True))
