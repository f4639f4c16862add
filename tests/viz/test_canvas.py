"""Masks on a layer: what painting the image itself, one object after the other, gives."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from gcnet.ops.masks import paste_masks
from gcnet.viz.canvas import LAYER_SIDE, MASK_OPACITY, Layer, Piece

SIZE = (150, 200)
DARK, WIDTH = (20, 20, 20), 1  # of lines on a picture of this size


def objects(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes inside and across the border, grids of probabilities with a few blobs, colours."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 150, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.5, 150, (count, 2))], 1).astype(np.float32)
    boxes[0] = [0, 0, SIZE[1], SIZE[0]]
    blobs = np.stack([cv2.GaussianBlur(rng.random((28, 28)), (0, 0), 2) for _ in range(count)])
    probs = ((blobs - 0.5) * 5 + 0.5).clip(0, 1).astype(np.float32)
    return boxes, probs, rng.integers(0, 256, (count, 3), dtype=np.uint8)


def photo() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def test_piece_is_the_pasted_mask() -> None:
    boxes, probs, _ = objects(60)
    pasted = paste_masks(torch.from_numpy(probs), torch.from_numpy(boxes), SIZE).numpy()
    for box, grid, expected in zip(boxes.tolist(), probs, pasted, strict=True):
        piece = Piece.of_detection(box, grid, SIZE)
        whole = np.zeros(SIZE, bool)
        whole[piece.window] = piece.mask
        assert np.array_equal(whole, expected)


@pytest.mark.parametrize("count", [1, 5, 60])
def test_painted_one_after_the_other(count: int) -> None:
    boxes, probs, colors = objects(count)
    image = photo()
    layer = Layer.over(image)
    expected = image.astype(float)
    masks = paste_masks(torch.from_numpy(probs), torch.from_numpy(boxes), SIZE).numpy()
    for box, grid, mask, color in zip(boxes.tolist(), probs, masks, colors, strict=True):
        layer.draw(Piece.of_detection(box, grid, layer.size), color)
        expected[mask] = expected[mask] * (1 - MASK_OPACITY) + color * MASK_OPACITY
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        contours = [cv2.approxPolyDP(contour, 0.5, True) for contour in contours]
        for ink, width in ((DARK, WIDTH + 2), (color.tolist(), WIDTH)):
            cover = np.zeros((*SIZE, 1), np.uint8)
            cv2.drawContours(cover, contours, -1, 255, width, cv2.LINE_AA)
            expected += (np.array(ink) - expected) * (cover / 255)
    painted = image.copy()
    layer.lay_over(painted)
    different = np.abs(painted - expected)
    assert different.max() <= 4  # where OpenCV smooths lines in fixed point
    assert (different > 2).mean() < 0.01
    assert (np.abs(painted - image.astype(int)) > 20).mean() > 0.1


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("band", [1, 7, 64])
def test_bands_meet_without_a_seam(step: int, band: int) -> None:
    size = (SIZE[0] * step - step // 2, SIZE[1] * step - step // 3)
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = np.random.default_rng(3).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])
    pixels[20:60] = 0
    large = cv2.resize(pixels, (SIZE[1] * step, SIZE[0] * step), interpolation=cv2.INTER_LINEAR)
    large = large[: size[0], : size[1]].astype(float)
    expected = image * (1 - large[..., 3:] / 255) + large[..., :3]
    Layer(pixels, step).lay_over(image, band=band)
    assert np.abs(image - expected).max() <= 1.01


@pytest.mark.parametrize(
    ("side", "step"), [(100, 1), (2 * LAYER_SIDE - 1, 1), (2 * LAYER_SIDE, 2), (4900, 5)]
)
def test_layer_is_smaller_than_large_pictures(side: int, step: int) -> None:
    layer = Layer.over(np.zeros((side, side, 3), np.uint8))
    assert layer.step == step
    assert all(length * step >= side for length in layer.size)
    assert not layer.pixels.any()
