from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from gcnet.errors import GCNetError
from gcnet.ops.segmentations import (
    flip_segmentation,
    outline_bounds,
    parse_segmentation,
    resize_segmentation,
    segmentation_area,
    segmentation_to_rle,
)

SQUARE = [np.array([[10, 20], [30, 20], [30, 60], [10, 60]], np.float64)]


def bitmap(segmentation: Any, height: int, width: int) -> np.ndarray:
    return coco_mask.decode(segmentation_to_rle(segmentation, height, width))


def encode(mask: np.ndarray) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def blob(rng: np.random.Generator, width: int, height: int) -> list[np.ndarray]:
    """A star-shaped outline with a ragged edge, well inside an image."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 24))
    radius = rng.uniform(0.25, 0.45) * min(width, height) * rng.uniform(0.7, 1.0, 24)
    centre = np.array([width, height]) / 2
    return [centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)]


def test_polygon_covers_the_pixels_between_its_corners() -> None:
    mask = bitmap(SQUARE, 80, 50)
    assert mask[20:60, 10:30].all()
    assert mask.sum() == 20 * 40 == segmentation_area(SQUARE, 80, 50)


def test_parse_takes_polygons_and_both_rle_forms() -> None:
    polygons, dropped = parse_segmentation([[10, 20, 30, 20, 30, 60, 10, 60]], 80, 50)
    assert dropped == 0
    assert isinstance(polygons, list)
    np.testing.assert_array_equal(polygons[0], SQUARE[0])
    mask = bitmap(SQUARE, 80, 50)
    runs = np.diff([0, *np.flatnonzero(np.diff(mask.ravel("F"), prepend=0)), mask.size])
    uncompressed, _ = parse_segmentation({"size": [80, 50], "counts": runs.tolist()}, 80, 50)
    compressed, _ = parse_segmentation({"size": [80, 50], "counts": encode(mask)["counts"].decode()}, 80, 50)
    np.testing.assert_array_equal(bitmap(uncompressed, 80, 50), mask)
    np.testing.assert_array_equal(bitmap(compressed, 80, 50), mask)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_every_compressed_rle_that_pycocotools_writes_is_read(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 300, 2)) < rng.choice([0.0, 0.01, 0.5, 1.0])
    rle = encode(mask)
    assert parse_segmentation(rle, *mask.shape) == (rle, 0)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"size": [8, 6], "counts": [48]}, "size"),
        ({"size": [6, 8], "counts": [40]}, "covers 40 pixels"),
        ({"size": [6, 8], "counts": ""}, "not a compressed"),
        ({"size": [6, 8], "counts": "\0\0"}, "not a compressed"),
        ({"size": [6, 8], "counts": "zz"}, "not a compressed"),
        ({"size": [6, 8], "counts": "oooooooooo0"}, "not a compressed"),
        ({"size": [6, 8], "counts": "11"}, "covers 2 pixels"),
        ({"size": [6, 8], "counts": [1.5]}, "neither"),
        ({"size": [6, 8], "counts": [2**40]}, "0 to 48 pixels"),
        ({"size": [6, 8]}, "neither"),
    ],
)
def test_parse_refuses_a_malformed_rle(raw: Any, message: str) -> None:
    with pytest.raises(GCNetError, match=message):
        parse_segmentation(raw, 6, 8)


@pytest.mark.parametrize(
    ("raw", "dropped"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], 1),
        ([[1, 2, 3, 4]], 1),
        ([[]], 1),
        ([[1, 2, 3, 4, 5, "six"]], 1),
        ([[1, 2, 3, 4, 5, float("nan")]], 1),
        ([[1, 2, 3, 4, 5, None]], 1),
        ([[1, 2, 3, 4, 5, [6]]], 1),
        ([[[1, 2], [3, 4]]], 1),
        ([7, None], 2),
        ("polygon", 1),
    ],
)
def test_parse_leaves_out_what_is_no_outline(raw: Any, dropped: int) -> None:
    assert parse_segmentation(raw, 6, 8) == ([], dropped)
    if isinstance(raw, list):
        polygons, left_out = parse_segmentation([*raw, [1, 2, 3, 4, 5, 6]], 6, 8)
        assert (len(polygons), left_out) == (1, dropped)


def test_parse_takes_points_as_pairs_and_one_polygon_alone() -> None:
    points = SQUARE[0].tolist()
    for raw in ([points], points, SQUARE[0].ravel().tolist(), [SQUARE[0].astype(str).ravel().tolist()]):
        polygons, dropped = parse_segmentation(raw, 80, 50)
        np.testing.assert_array_equal(polygons, SQUARE)
        assert dropped == 0


def test_bounds_of_polygons_rles_and_nothing() -> None:
    two = [SQUARE[0], SQUARE[0] + 5]
    bounds = outline_bounds([SQUARE, [], segmentation_to_rle(SQUARE, 80, 50), two])
    np.testing.assert_array_equal(bounds[[0, 2]], [[10, 20, 30, 60]] * 2)
    assert np.isnan(bounds[1]).all()
    np.testing.assert_array_equal(bounds[3], [10, 20, 35, 65])
    assert outline_bounds([]).shape == (0, 4)


def test_resize_scales_polygons_by_each_axis() -> None:
    resized = resize_segmentation(SQUARE, 2.0, 0.5, (40, 100))
    assert isinstance(resized, list)
    np.testing.assert_array_equal(resized[0], SQUARE[0] * [2, 0.5])


def test_resize_of_rle_is_nearest() -> None:
    mask = np.random.default_rng(0).random((30, 40)) < 0.5
    resized = resize_segmentation(encode(mask), 1.5, 1.5, (45, 60))
    expected = cv2.resize(mask.astype(np.uint8), (60, 45), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(bitmap(resized, 45, 60), expected)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_flipping_twice_changes_nothing(seed: int, as_rle: bool) -> None:
    polygons = blob(np.random.default_rng(seed), 61, 47)
    segmentation = segmentation_to_rle(polygons, 47, 61) if as_rle else polygons
    flipped = flip_segmentation(segmentation, 61)
    again = flip_segmentation(flipped, 61)
    np.testing.assert_array_equal(bitmap(again, 47, 61), bitmap(segmentation, 47, 61))
    differing = bitmap(flipped, 47, 61) != bitmap(segmentation, 47, 61)[:, ::-1]
    assert differing.sum() <= (0 if as_rle else 40)  # outline pixels may fall on the other side
