"""Predicted masks drawn into the image.

D detections, M x M grid of probabilities over each box, H x W image.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gcnet.ops.rle import MASK_THRESHOLD, sample_columns, sample_positions, window

CACHED = 1 << 16  # samples of a mask that are computed at a time, so that they stay in the cache


def paste_masks(
    probs: Float[Tensor, "D M M"], boxes: Float[Tensor, "D 4"], size: tuple[int, int]
) -> Bool[Tensor, "D H W"]:
    """Masks of all detections in an image of `size` (height, width)."""
    if probs.device.type != "cpu":
        return paste_at_once(probs, boxes, size)
    # The system gives memory of np.zeros when it is first written to: only pages that are drawn on count.
    masks = np.zeros((len(probs), *size), bool)
    for mask, grid, box in zip(masks, probs.detach().float().numpy(), boxes.tolist(), strict=True):
        _draw(mask, grid, box)
    return torch.from_numpy(masks)


def paste_at_once(
    probs: Float[Tensor, "D M M"], boxes: Float[Tensor, "D 4"], size: tuple[int, int], *, limit: int = 2**28
) -> Bool[Tensor, "D H W"]:
    """`paste_masks` for a GPU: matrix products for whole images, without waiting for the GPU.

    Bilinear sampling is linear and separable. Sums are in another order, so a pixel in a million may differ.

    Args:
        limit: bytes of float32 samples that are held at a time; one image's at the least.
    """
    height, width = size
    grid = probs.shape[-1]
    down = _bilinear_weights(boxes[:, 1], boxes[:, 3], height, grid)
    across = _bilinear_weights(boxes[:, 0], boxes[:, 2], width, grid)
    masks = torch.empty((len(probs), *size), dtype=torch.bool, device=probs.device)
    step = max(limit // (4 * height * width), 1)
    for first in range(0, len(probs), step):
        some = slice(first, first + step)
        sampled = down[some] @ probs[some].float() @ across[some].mT
        torch.ge(sampled, MASK_THRESHOLD, out=masks[some])
    return masks


def edges_at_once(
    probs: Float[Tensor, "D M M"], boxes: Float[Tensor, "D 4"], size: tuple[int, int], *, limit: int = 2**28
) -> list[Int64[np.ndarray, " _E"]]:
    """`gcnet.ops.rle.mask_edges` of each mask of `paste_at_once`, for a GPU; `limit` as there."""
    step = max(limit // (4 * size[0] * size[1]), 1)
    found: list[Int64[np.ndarray, " _E"]] = []
    for first in range(0, len(probs), step):
        masks = paste_at_once(probs[first : first + step], boxes[first : first + step], size, limit=limit)
        columns = masks.transpose(1, 2).flatten(1)  # COCO counts down the columns
        turns = columns.clone()
        turns[:, 1:] ^= columns[:, :-1]
        mask, edge = turns.nonzero().cpu().numpy().T
        found += np.split(edge, np.bincount(mask, minlength=len(masks)).cumsum()[:-1])
    return found


def _bilinear_weights(
    low: Float[Tensor, " D"], high: Float[Tensor, " D"], length: int, grid: int
) -> Float[Tensor, "D P M"]:
    """The weight of each of `grid` cells over [low, high] at the centre of each pixel."""
    centres = torch.arange(length, device=low.device) + 0.5
    extent = (high - low)[:, None]
    positions = (centres - low[:, None]) / extent * grid - 0.5
    cells = torch.arange(grid, device=low.device)
    weights = (1 - (positions[:, :, None] - cells).abs()).clamp(min=0)
    return torch.where(extent[:, :, None] > 0, weights, 0.0)


def _draw(mask: Bool[np.ndarray, "H W"], probs: Float[np.ndarray, "M M"], box: list[float]) -> None:
    rows, columns = window(box, (mask.shape[0], mask.shape[1]))
    if rows.start == rows.stop or columns.start == columns.stop:
        return
    # Columns first, then rows, as in `gcnet.ops.rle.mask_edges`: the same operations give the same pixels.
    values = sample_columns(probs, columns, box)
    cells, shares = sample_positions(rows.start, rows.stop, box[1], box[3], len(probs))
    slopes, part = values[1:] - values[:-1], mask[rows, columns]
    step = max(CACHED // values.shape[1], 1)
    for some in (slice(first, first + step) for first in range(0, len(cells), step)):
        drawn = slopes[cells[some]]
        drawn *= shares[some, None]
        drawn += values[cells[some]]
        np.greater_equal(drawn, MASK_THRESHOLD, out=part[some])
