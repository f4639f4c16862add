"""Predicted masks drawn into the image.

D detections, M x M grid of probabilities over each box, H x W image.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from gcnet.ops.rle import MASK_THRESHOLD, sample_positions, window


def paste_masks(
    probs: Float[Tensor, "D M M"], boxes: Float[Tensor, "D 4"], size: tuple[int, int]
) -> Bool[Tensor, "D H W"]:
    """Masks of all detections in an image of `size` (height, width)."""
    masks = _empty_masks(len(probs), size, probs.device)
    for mask, prob, box in zip(masks, probs, boxes, strict=True):
        _draw(mask, prob, box)
    return masks


def _empty_masks(count: int, size: tuple[int, int], device: torch.device) -> Bool[Tensor, "D H W"]:
    if device.type != "cpu":
        return torch.zeros((count, *size), dtype=torch.bool, device=device)
    # NumPy's zeros are memory that the system gives when it is first written to: only what is drawn on costs.
    return torch.from_numpy(np.zeros((count, *size), bool))


def paste_mask(
    probs: Float[Tensor, "M M"], box: Float[Tensor, " 4"], size: tuple[int, int]
) -> Bool[Tensor, "H W"]:
    """The mask of one detection in an image of `size` (height, width)."""
    mask = torch.zeros(size, dtype=torch.bool, device=probs.device)
    _draw(mask, probs, box)
    return mask


def _draw(mask: Bool[Tensor, "H W"], probs: Float[Tensor, "M M"], box: Float[Tensor, " 4"]) -> None:
    (x1, y1, x2, y2), grid = box.tolist(), len(probs)
    rows, columns = window([x1, y1, x2, y2], (mask.shape[0], mask.shape[1]))
    if rows.start == rows.stop or columns.start == columns.stop:
        return
    padded = pad(probs.float(), (1, 1, 1, 1))
    # Columns first, then rows, as in `gcnet.ops.rle`: the same operations give the same pixels.
    sampled = _sample(padded.T, columns, x1, x2, grid).T
    mask[rows, columns] = _sample(sampled, rows, y1, y2, grid) >= MASK_THRESHOLD


def _sample(
    values: Float[Tensor, "M2 L"], pixels: slice, low: float, high: float, grid: int
) -> Float[Tensor, "P L"]:
    """Bilinear samples along the first axis, where `grid` cells and an empty one at either end lie."""
    cells, shares = (
        torch.from_numpy(array).to(values.device)
        for array in sample_positions(pixels.start, pixels.stop, low, high, grid)
    )
    return (values.diff(dim=0)[cells] * shares[:, None]).add_(values[cells])
