"""What the mask head learns: views of polygons, and of RLEs as the reference's RoIAlign gives them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from gcnet.ops.mask_targets import crop_segmentations
from gcnet.ops.segmentations import mask_to_rle, resize_segmentation, segmentation_to_rle

SQUARE = [np.array([[10, 20], [30, 20], [30, 60], [10, 60]], np.float64)]


def crop_segmentation(segmentation: Any, box: np.ndarray, size: int = 28) -> np.ndarray:
    return crop_segmentations([segmentation], np.zeros(1, np.int64), np.float32(box)[None], size)[0]


def blob(rng: np.random.Generator, width: int, height: int) -> list[np.ndarray]:
    """A star-shaped outline with a ragged edge, well inside an image."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 24))
    radius = rng.uniform(0.25, 0.45) * min(width, height) * rng.uniform(0.7, 1.0, 24)
    centre = np.array([width, height]) / 2
    return [centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)]


def bounds(polygons: list[np.ndarray]) -> np.ndarray:
    points = np.concatenate(polygons)
    return np.concatenate([points.min(0), points.max(0)]).astype(np.float32)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_crop_of_rle_is_roi_align_of_the_bitmap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(20, 200, 2))
    mask = cv2.resize(rng.integers(0, 2, (9, 7), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    corner = rng.uniform(-4, 0.8, 2) * [width / 8, height / 8] + [width / 2, height / 2] * rng.random(2)
    box = np.concatenate([corner, corner + rng.uniform(0, 1.2, 2) * [width, height]]).astype(np.float32)
    image = torch.from_numpy(mask)[None, None].float()
    averages = roi_align(image, [torch.from_numpy(box)[None]], 28, 1.0, 0, True)[0, 0].numpy()
    differing = crop_segmentation(mask_to_rle(mask), box) != (averages >= 0.5)
    assert not (differing & (np.abs(averages - 0.5) > 1e-6)).any()


def test_crop_of_an_empty_box_is_empty() -> None:
    box = np.array([5, 5, 5, 9], np.float32)
    assert not crop_segmentation(mask_to_rle(np.ones((20, 20), np.uint8)), box).any()


@pytest.mark.parametrize(("long_side", "limit"), [(800, 0.006), (120, 0.025)])
def test_polygon_crop_agrees_with_the_bitmap_way(long_side: int, limit: float) -> None:
    """Drawn in the box directly, against the reference's bitmap, nearest resize and RoIAlign.

    They differ in half a percent of a target's pixels, all on outlines, and in 2 % where the bitmap is
    coarse. The direct way is the nearer one to the outline's true coverage (from drawing it 9 times finer).
    """
    rng = np.random.default_rng(0)
    width, height, scale = 480, 360, long_side / 480
    size = (long_side * height // width, long_side)
    rows = []
    for _ in range(20):
        polygons = blob(rng, width, height)
        scaled = resize_segmentation(polygons, scale, scale, size)
        as_bitmap = resize_segmentation(segmentation_to_rle(polygons, height, width), scale, scale, size)
        box = bounds(polygons) * np.float32(scale)
        direct, reference = crop_segmentation(scaled, box), crop_segmentation(as_bitmap, box)
        truth = crop_segmentation(scaled, box, 28 * 9).reshape(28, 9, 28, 9).mean((1, 3)) >= 0.5
        rows.append([(a != b).mean() for a, b in ((direct, reference), (direct, truth), (reference, truth))])
    differing, direct_error, reference_error = np.mean(rows, axis=0)
    assert differing < limit, (differing, direct_error, reference_error)
    assert direct_error < reference_error


def test_a_polygon_larger_than_its_box_is_cut_off() -> None:
    crop = crop_segmentation(SQUARE, np.array([20, 30, 40, 50], np.float32), 20)
    assert crop[:, :10].all()
    assert not crop[:, 10:].any()


def test_a_box_of_a_thousandth_pixel_is_still_quick() -> None:
    huge = [SQUARE[0] * 100]
    crop = crop_segmentation(huge, np.array([1500, 3000, 1500.001, 3000.001], np.float32))
    assert crop.all()


def test_crops_of_many_regions_follow_their_indices() -> None:
    rng = np.random.default_rng(1)
    polygons = blob(rng, 100, 80)
    segmentations = [polygons, segmentation_to_rle(SQUARE, 80, 100), SQUARE]
    indices = np.array([2, 0, 1, 0, 2])
    boxes = np.sort(rng.uniform(5, 75, (5, 2, 2)), axis=1).reshape(5, 4).astype(np.float32)
    crops = crop_segmentations(segmentations, indices, boxes, 14)
    for crop, index, box in zip(crops, indices, boxes, strict=True):
        np.testing.assert_array_equal(crop, crop_segmentation(segmentations[index], box, 14))
    none = crop_segmentations([], np.zeros(0, np.int64), np.zeros((0, 4), np.float32), 28)
    assert none.shape == (0, 28, 28)
