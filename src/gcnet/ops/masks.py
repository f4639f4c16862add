"""Predicted masks drawn into the image.

D detections, M x M grid of probabilities over each box, H x W image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask
from torch import Tensor

MASK_THRESHOLD = 0.5


def paste_masks(
    probs: Float[Tensor, "D M M"], boxes: Float[Tensor, "D 4"], size: tuple[int, int]
) -> Bool[Tensor, "D H W"]:
    """Masks of all detections in an image of `size` (height, width)."""
    masks = torch.zeros((len(probs), *size), dtype=torch.bool, device=probs.device)
    for mask, prob, box in zip(masks, probs, boxes, strict=True):
        _draw(mask, prob, box)
    return masks


def paste_mask(
    probs: Float[Tensor, "M M"], box: Float[Tensor, " 4"], size: tuple[int, int]
) -> Bool[Tensor, "H W"]:
    """The mask of one detection in an image of `size` (height, width)."""
    mask = torch.zeros(size, dtype=torch.bool, device=probs.device)
    _draw(mask, probs, box)
    return mask


def _draw(mask: Bool[Tensor, "H W"], probs: Float[Tensor, "M M"], box: Float[Tensor, " 4"]) -> None:
    """Sets the pixels whose bilinearly sampled probability reaches the threshold; touches only the box."""
    height, width = mask.shape
    x1, y1, x2, y2 = box.tolist()
    top, bottom = max(int(np.floor(y1)) - 1, 0), min(int(np.ceil(y2)) + 1, height)
    left, right = max(int(np.floor(x1)) - 1, 0), min(int(np.ceil(x2)) + 1, width)
    if bottom <= top or right <= left or x2 <= x1 or y2 <= y1:
        return
    grid = probs.shape[-1]
    rows = _bilinear_weights(top, bottom, y1, y2, grid, probs)
    columns = _bilinear_weights(left, right, x1, x2, grid, probs)
    mask[top:bottom, left:right] = rows @ probs @ columns.T >= MASK_THRESHOLD


def _bilinear_weights(
    first: int, last: int, low: float, high: float, grid: int, like: Tensor
) -> Float[Tensor, "P M"]:
    """How much each of the `grid` cells over [low, high] counts at the centre of pixels first..last - 1.

    Bilinear sampling is a product of these per axis; cells beyond the border count as zero.
    """
    centres = torch.arange(first, last, device=like.device, dtype=torch.float32) + 0.5
    position = (centres - low) / (high - low) * grid - 0.5
    cells = torch.arange(grid, device=like.device, dtype=torch.float32)
    return (1 - (position[:, None] - cells[None]).abs()).clamp(min=0).to(like.dtype)


def mask_to_rle(mask: Bool[Tensor, "H W"]) -> dict[str, Any]:
    """A mask as COCO's compressed run-length encoding, `counts` as text so that it goes into JSON."""
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.cpu().numpy().view(np.uint8)))  # type: ignore[assignment]
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
