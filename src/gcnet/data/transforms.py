"""Transforms of an image and its annotations, for augmentation in training.

A transform is any callable that takes a `Sample` and a random generator and returns a new `Sample`: image,
boxes and outlines change together. `train_transforms` makes the list of a recipe; your own go into
`DataSet.transforms` and are applied first. H x W image, G objects. Images stay RGB uint8; they are normalised
and padded later, in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from gcnet.data.sample import Sample
from gcnet.errors import GCNetError
from gcnet.ops.images import fit_size, resize_image
from gcnet.ops.segmentations import (
    Segmentation,
    cover_segmentation,
    crop_segmentation,
    flip_segmentation,
    move_segmentation,
    outline_bounds,
    resize_segmentation,
    segmentation_to_mask,
)
from gcnet.recipe import Recipe

BACKGROUND = 114  # grey level of the corners of a rotated image
VISIBLE = 0.25  # share of its box that an object needs to be kept where a transform cuts it off


Transform: TypeAlias = Callable[[Sample, np.random.Generator], Sample]


def train_transforms(
    recipe: Recipe, image_size: tuple[int, int], another: Callable[[np.random.Generator], Sample]
) -> list[Transform]:
    """The transforms of a recipe, in order. `another` draws a sample to paste from."""
    paste = [CopyPaste(recipe.copy_paste, another)] if recipe.copy_paste else []
    crop = [Crop(recipe.crop)] if recipe.crop < 1 else []
    always = [Resize(image_size, recipe.scale_jitter), Flip(recipe.flip), ColorJitter(recipe.color_jitter)]
    return [*paste, *turns(recipe), *crop, *always]


def turns(recipe: Recipe) -> list[Transform]:
    """The transforms of a recipe that rotate images."""
    quarters = [QuarterTurn(recipe.quarter_turns)] if recipe.quarter_turns else []
    return [*quarters, *([Rotation(recipe.rotation)] if recipe.rotation else [])]


def apply(transforms: Sequence[Transform], sample: Sample, rng: np.random.Generator) -> Sample:
    """Applies the transforms in turn. Raises GCNetError if one returns something else than a sample."""
    for transform in transforms:
        sample = transform(sample, rng)
        if not isinstance(sample, Sample):
            raise GCNetError(
                f"the transform {transform} gave a {type(sample).__name__}; "
                "return a gcnet.data.transforms.Sample"
            )
    return sample


# What every recipe does: these draw the same random numbers whatever their settings ----------------------


@dataclass(frozen=True)
class Resize:
    """The sample made to fit `limits`, a (long, short) side, times a factor drawn from `jitter`."""

    limits: tuple[int, int]
    jitter: tuple[float, float] = (1.0, 1.0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        factor = rng.uniform(*self.jitter)
        long, short = (max(int(side * factor + 0.5), 1) for side in self.limits)
        return resize(sample, fit_size(sample.size, (long, short)))


@dataclass(frozen=True)
class Flip:
    """The sample mirrored left to right with `probability`."""

    probability: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return mirror(sample) if rng.random() < self.probability else sample


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation times factors drawn from 1 - `strength` to 1 + `strength`."""

    strength: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        draws = rng.uniform(-1, 1, 3)
        if not self.strength:
            return sample
        return replace(sample, image=jitter_colors(sample.image, 1 + self.strength * draws))


# Options -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuarterTurn:
    """The sample rotated by 90, 180 or 270 degrees with `probability`, without resampling."""

    probability: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        draw, turns = rng.random(), int(rng.integers(1, 4))
        if draw >= self.probability:
            return sample
        height, width = sample.size
        # Counter-clockwise, as np.rot90: x, y of a point become y, width - x.
        turn = {
            1: [[0, 1, 0], [-1, 0, width]],
            2: [[-1, 0, width], [0, -1, height]],
            3: [[0, -1, height], [1, 0, 0]],
        }
        size = (height, width) if turns == 2 else (width, height)
        image = np.ascontiguousarray(np.rot90(sample.image, turns))
        return move(sample, image, np.array(turn[turns], np.float64), size)


@dataclass(frozen=True)
class Rotation:
    """The sample rotated about its middle by up to `degrees` either way, and cut at the borders."""

    degrees: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        angle = rng.uniform(-self.degrees, self.degrees)
        height, width = sample.size
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        pixels = matrix.copy()  # OpenCV counts from the middle of the first pixel
        pixels[:, 2] += (matrix[:, :2].sum(1) - 1) / 2
        fill = (BACKGROUND,) * 3
        image = cv2.warpAffine(sample.image, pixels, (width, height), borderValue=fill)
        return move(sample, image, matrix, sample.size)


@dataclass(frozen=True)
class Crop:
    """A random part of the sample, each side a share of it drawn from `smallest` to 1.

    Objects of which less than a quarter is left are dropped; if none would be left, the sample stays whole.
    """

    smallest: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        shares, places = rng.uniform(self.smallest, 1, 2), rng.random(2)
        height, width = sample.size
        h, w = (max(round(side * share), 1) for side, share in zip((height, width), shares, strict=True))
        top, left = int(places[0] * (height - h + 1)), int(places[1] * (width - w + 1))
        image = np.ascontiguousarray(sample.image[top : top + h, left : left + w])
        shift = np.array([[1.0, 0, -left], [0, 1, -top]])
        cropped = move(sample, image, shift, (h, w))
        return cropped if cropped.has_objects or not sample.has_objects else sample


@dataclass(frozen=True)
class CopyPaste:
    """Objects of another sample pasted over this one with `probability` (arXiv 2012.07177).

    Each object of the other is taken or not by a coin. The other is fitted into this image at half its size
    to all of it, perhaps mirrored. What is covered is taken out of the outlines below; objects of which less
    than a quarter stays to be seen are dropped.
    """

    probability: float
    another: Callable[[np.random.Generator], Sample]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        other = self.another(rng)
        scale, mirrored = rng.uniform(0.5, 1), rng.random() < 0.5
        outlined = [i for i, mask in enumerate(other.masks) if mask]
        other = other.keep([i for i in outlined if rng.random() < 0.5])
        places = rng.random(2)
        height, width = sample.size
        factor = scale * min(height / other.size[0], width / other.size[1])
        h, w = (max(int(side * factor), 1) for side in other.size)
        other = resize(other, (h, w))
        other = mirror(other) if mirrored else other
        top, left = int(places[0] * (height - h + 1)), int(places[1] * (width - w + 1))
        canvas = np.zeros_like(sample.image)
        canvas[top : top + h, left : left + w] = other.image
        shift = np.array([[1.0, 0, left], [0, 1, top]])
        return paste(sample, move(other, canvas, shift, sample.size))


# What transforms are made of -----------------------------------------------------------------------------


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample at `size` (height, width)."""
    height, width = size
    scale_x, scale_y = width / sample.size[1], height / sample.size[0]
    boxes = sample.boxes * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    masks = [resize_segmentation(mask, scale_x, scale_y, size) for mask in sample.masks]
    return replace(sample, image=resize_image(sample.image, size), boxes=boxes, masks=masks)


def mirror(sample: Sample) -> Sample:
    """The sample mirrored left to right."""
    width = sample.size[1]
    x1, y1, x2, y2 = sample.boxes.T
    boxes = np.stack([width - x2, y1, width - x1, y2], axis=1)
    masks = [flip_segmentation(mask, width) for mask in sample.masks]
    return replace(sample, image=cv2.flip(sample.image, 1), boxes=boxes, masks=masks)


def move(
    sample: Sample,
    image: UInt8[np.ndarray, "h w 3"],
    matrix: Float[np.ndarray, "2 3"],
    size: tuple[int, int],
) -> Sample:
    """The sample with another `image` of `size`, to whose pixels `matrix` takes those of the old one.

    Boxes are fitted to what is seen of the outlines, or where there are none, to the moved corners. Objects
    of which less than a quarter is seen, or less than a pixel each way, are left out.
    """
    x1, y1, x2, y2 = sample.boxes.T.astype(np.float64)
    corners = np.stack([np.stack([x1, x2, x2, x1], 1), np.stack([y1, y1, y2, y2], 1)], 2)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]
    whole = np.concatenate([corners.min(1), corners.max(1)], 1)
    masks = [move_segmentation(mask, matrix, size) for mask in sample.masks]
    outlines = outline_bounds(masks)
    whole = np.where(np.isnan(outlines), whole, outlines)
    masks = [crop_segmentation(mask, size) for mask in masks]
    seen = np.where(np.isnan(outlines), whole, outline_bounds(masks))
    seen = seen.clip(0, np.tile(np.array(size[::-1], np.float64), 2))
    sides = seen[:, 2:] - seen[:, :2]
    shares = sides.prod(1) / np.maximum((whole[:, 2:] - whole[:, :2]).prod(1), 1e-9)
    moved = replace(sample, image=image, boxes=seen.astype(np.float32), masks=masks)
    return moved.keep(np.flatnonzero((sides >= 1).all(1) & (shares >= VISIBLE)))


def paste(below: Sample, above: Sample) -> Sample:
    """The objects of `above`, which have outlines, laid over `below`, an image of the same size."""
    cover = np.zeros(below.size, np.uint8)
    for mask in above.masks:
        cover |= segmentation_to_mask(mask, below.size)
    image = np.where(cover[:, :, None] > 0, above.image, below.image)
    masks = [cover_segmentation(mask, cover) for mask in below.masks]
    seen = np.array(
        [_seen(box, old, new, cover) for box, old, new in zip(below.boxes, below.masks, masks, strict=True)]
    )
    changed = [i for i, (old, new) in enumerate(zip(below.masks, masks, strict=True)) if new is not old]
    boxes = below.boxes.copy()
    boxes[changed] = outline_bounds([masks[i] for i in changed])
    rest = replace(below, image=image, boxes=boxes, masks=masks).keep(np.flatnonzero(seen >= VISIBLE))
    return Sample(
        image,
        np.concatenate([rest.boxes, above.boxes]),
        np.concatenate([rest.labels, above.labels]),
        [*rest.masks, *above.masks],
    )


def _seen(
    box: Float32[np.ndarray, " 4"], old: Segmentation, new: Segmentation, cover: UInt8[np.ndarray, "H W"]
) -> float:
    """The share of an object that the cover leaves; of its box where no outline is known."""
    if old:
        if new is old:
            return 1.0
        before = segmentation_to_mask(old, cover.shape).sum()
        return float(segmentation_to_mask(new, cover.shape).sum() / max(before, 1))
    x1, y1, x2, y2 = box.round().astype(int).clip(0)
    inside = cover[y1:y2, x1:x2]
    return 1 - float(inside.mean()) if inside.size else 1.0


def jitter_colors(image: UInt8[np.ndarray, "h w 3"], factors: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its brightness, contrast (about its mean) and saturation multiplied by `factors`."""
    brightness, contrast, saturation = (max(float(factor), 0.0) for factor in factors)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    image = cv2.addWeighted(image, saturation, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 1 - saturation, 0)
    levels = np.arange(256, dtype=np.float64)
    mean = grey.mean()
    table = ((levels - mean) * contrast + mean) * brightness
    return cv2.LUT(image, np.rint(table).clip(0, 255).astype(np.uint8))
