"""The targets of the mask head: annotated masks, cropped to regions.

R regions, G objects, P points, S side of a target. Polygons are never drawn at the size of the image: they
are moved and scaled to the region. Coordinates are those of `gcnet.ops.segmentations`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from gcnet.ops.segmentations import Segmentation, rle_to_mask, segmentation_to_rle

# Cropped polygons are drawn this much finer and then averaged: a third of the error of drawing them as they
# are, for little time. Odd, so that there are no ties at one half.
_FINER = 3

OUTLINE_SIZE = 56  # of a drawn object: a region that overlaps it by half still gets 28 pixels and more of it


def draw_outlines(
    segmentations: Sequence[Segmentation], boxes: Float[np.ndarray, "G 4"]
) -> tuple[UInt8[np.ndarray, "G S S"], Float[np.ndarray, "G 4"]] | None:
    """Draws each object once at its own size; regions are cropped from these drawings later.

    Returns how much of each pixel the object covers, 0 to 255, and the frame (xyxy) that the S x S pixels
    fill, with an empty pixel on each side; none if there is an RLE among the `segmentations`, which has
    pixels of its own. Of a polygon that reaches far beyond its box, it holds what a region can see that
    overlaps the box by half.
    """
    if any(isinstance(segmentation, dict) for segmentation in segmentations):
        return None
    drawn = np.zeros((len(segmentations), OUTLINE_SIZE, OUTLINE_SIZE), np.uint8)
    frames = np.zeros((len(segmentations), 4), np.float32)
    for index, (polygons, box) in enumerate(zip(segmentations, boxes, strict=True)):
        points = np.concatenate([box.reshape(2, 2), *polygons])  # type: ignore[list-item]
        side = np.maximum(box[2:] - box[:2], 1)
        low, high = np.maximum(points.min(0), box[:2] - side), np.minimum(points.max(0), box[2:] + side)
        margin = np.maximum(high - low, 1) / (OUTLINE_SIZE - 2)
        low, high = low - margin, np.maximum(high, low + 1) + margin
        frames[index] = *low, *high
        drawn[index] = np.rint(_coverage(polygons, low, high - low, OUTLINE_SIZE) * (255 / _FINER**2))  # type: ignore[arg-type]
    return drawn, frames


def crop_segmentations(
    segmentations: Sequence[Segmentation],
    indices: Int[np.ndarray, " R"],
    boxes: Float[np.ndarray, "R 4"],
    size: int = 28,
) -> Bool[np.ndarray, "R S S"]:
    """The mask targets of regions: `segmentations[index]`, cropped to each box.

    Boxes are xyxy in the pixels of the segmentations. RLEs give the reference's result (RoIAlign of the
    bitmap, aligned, at least 0.5); polygons are drawn in the box directly, which agrees but for outline
    pixels and costs nothing in image size. An RLE is decoded once however many regions want it.
    """
    crops = np.zeros((len(indices), size, size), bool)
    for index in np.unique(indices):
        segmentation = segmentations[index]
        regions = np.flatnonzero(indices == index)
        if isinstance(segmentation, dict):
            bitmap = rle_to_mask(segmentation)
            crops[regions] = [_crop_bitmap(bitmap, box, size) for box in boxes[regions]]
        else:
            crops[regions] = [_crop_polygons(segmentation, box, size) for box in boxes[regions]]
    return crops


def _crop_polygons(
    polygons: list[np.ndarray], box: Float[np.ndarray, "4"], size: int
) -> Bool[np.ndarray, "S S"]:
    box = box.astype(np.float64)
    # At least a pixel, so that the enlarged outline, and with it the time to draw it, stays bounded.
    extent = np.maximum(box[2:] - box[:2], 1.0)
    return _coverage(polygons, box[:2], extent, size) * 2 >= _FINER**2


def _coverage(
    polygons: list[np.ndarray], corner: Float[np.ndarray, "2"], extent: Float[np.ndarray, "2"], size: int
) -> Int[np.ndarray, "S S"]:
    """How much of each cell is covered, 0 to 9, of a grid at `corner` that is `extent` wide and high."""
    fine = size * _FINER
    moved = [(polygon - corner) * (fine / extent) for polygon in polygons]
    drawn = rle_to_mask(segmentation_to_rle(moved, fine, fine))
    return drawn.reshape(size, _FINER, size, _FINER).sum((1, 3), dtype=np.int64)


def _crop_bitmap(
    bitmap: UInt8[np.ndarray, "H W"], box: Float[np.ndarray, "4"], size: int
) -> Bool[np.ndarray, "S S"]:
    """RoIAlign (aligned, sampling_ratio 0) of a bitmap, then >= 0.5.

    The average over a regular grid of bilinear samples is separable: two small matrix products.
    """
    box = np.asarray(box, np.float32)
    rows, row_weights = _sampling_matrix(box[1], box[3], bitmap.shape[0], size)
    columns, column_weights = _sampling_matrix(box[0], box[2], bitmap.shape[1], size)
    return row_weights @ bitmap[rows, columns] @ column_weights.T >= 0.5


def _sampling_matrix(
    start: np.float32, stop: np.float32, length: int, size: int
) -> tuple[slice, Float[np.ndarray, "S L"]]:
    """Along one axis: which pixels RoIAlign reads, and the weight of each in each of `size` bins.

    Positions are float32 in the order of operations of torchvision and mmcv, so that rounding agrees.
    """
    half, one = np.float32(0.5), np.float32(1)
    extent = (stop - half) - (start - half)
    samples = int(np.ceil(extent / np.float32(size)))
    if samples < 1:  # an empty box: nothing is read
        return slice(0, 0), np.zeros((size, 0))
    bin_extent = extent / np.float32(size)
    offsets = (np.arange(samples, dtype=np.float32) + half) * bin_extent / np.float32(samples)
    positions = (start - half) + np.arange(size, dtype=np.float32)[:, None] * bin_extent + offsets
    inside = (positions >= -1) & (positions <= length)
    positions = np.maximum(positions, 0)
    low = np.minimum(positions.astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    upper = np.where(low >= length - 1, np.float32(0), positions - low.astype(np.float32))
    lower = one - upper
    first, last = int(low.min()), int(high.max())
    weights = np.zeros((size, last + 1 - first))
    bins = np.broadcast_to(np.arange(size)[:, None], low.shape)
    np.add.at(weights, (bins, low - first), np.where(inside, lower, 0))
    np.add.at(weights, (bins, high - first), np.where(inside, upper, 0))
    return slice(first, last + 1), weights / samples
