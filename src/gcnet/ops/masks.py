"""Predicted masks drawn into the image.

D detections, M x M grid of probabilities over each box, H x W image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from pycocotools import mask as _mask
from torch import Tensor

coco_mask: Any = _mask  # its type stubs know only half of what it accepts

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


def draw_rle(probs: Float[Tensor, "M M"], box: Float[Tensor, " 4"], size: tuple[int, int]) -> dict[str, Any]:
    """`mask_to_rle(paste_mask(...))` at the cost of the box alone, which matters in large photographs."""
    height, width = size
    rows, columns = _window(box, size)
    crop = _crop(probs, box, rows, columns).T.cpu().numpy()  # COCO counts down the columns
    # An empty pixel below each column ends its last run there.
    closed = np.pad(crop.astype(np.int8), ((0, 0), (0, 1)))
    column, row = np.divmod(np.flatnonzero(np.diff(closed.ravel(), prepend=0)), closed.shape[1])
    edges = (column + columns.start) * height + row + rows.start
    # Where columns are as tall as the image, one's end is the next one's start: no edge.
    touching = np.flatnonzero(np.diff(edges) == 0)
    edges = np.delete(edges, np.concatenate([touching, touching + 1]))
    runs = np.diff(edges, prepend=0, append=height * width).tolist()
    counts = runs if runs[-1] else runs[:-1]
    encoded: dict[str, Any] = coco_mask.frPyObjects(
        {"size": [height, width], "counts": counts}, height, width
    )
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _draw(mask: Bool[Tensor, "H W"], probs: Float[Tensor, "M M"], box: Float[Tensor, " 4"]) -> None:
    rows, columns = _window(box, (mask.shape[0], mask.shape[1]))
    mask[rows, columns] = _crop(probs, box, rows, columns)


def _window(box: Float[Tensor, " 4"], size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns that a box touches in an image of `size`; none if either is empty."""
    (height, width), (x1, y1, x2, y2) = size, box.tolist()
    if x2 <= x1 or y2 <= y1:
        return slice(0, 0), slice(0, 0)
    top, left = max(int(np.floor(y1)) - 1, 0), max(int(np.floor(x1)) - 1, 0)
    bottom, right = min(int(np.ceil(y2)) + 1, height), min(int(np.ceil(x2)) + 1, width)
    return slice(top, max(bottom, top)), slice(left, max(right, left))


def _crop(
    probs: Float[Tensor, "M M"], box: Float[Tensor, " 4"], rows: slice, columns: slice
) -> Bool[Tensor, "h w"]:
    """Where in a window of the image the bilinearly sampled probability reaches the threshold."""
    x1, y1, x2, y2 = box.tolist()
    grid = probs.shape[-1]
    down = _bilinear_weights(rows.start, rows.stop, y1, y2, grid, probs)
    across = _bilinear_weights(columns.start, columns.stop, x1, x2, grid, probs)
    return down @ probs @ across.T >= MASK_THRESHOLD


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
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.cpu().numpy().view(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
