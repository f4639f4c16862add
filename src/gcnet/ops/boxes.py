"""Boxes: overlap, and the deltas that turn one box into another.

R, S boxes of each of N images; xyxy float pixels with widths x2 - x1; H x W image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Stds = tuple[float, float, float, float]  # what deltas are divided by
# Sizes of N images: (height, width) of each; or (width, height, width, height) on the boxes' device, where a
# number would be copied to a GPU, or become part of a CUDA graph.
Extents = Sequence[tuple[int, int]] | Float[Tensor, "N 4"]
# exp() of a predicted width never grows a box beyond what an image of 1000 pixels could need.
MAX_LOG_RATIO = abs(math.log(16 / 1000))


def box_area(boxes: Float[Tensor, "*R 4"]) -> Float[Tensor, "*R"]:
    """Areas in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_overlap(boxes: Float[Tensor, "*N R 4"], others: Float[Tensor, "*N S 4"]) -> Float[Tensor, "*N R S"]:
    """The intersection area of every pair."""
    x1, y1, x2, y2 = boxes[..., None, :].unbind(-1)
    left, top, right, bottom = others[..., None, :, :].unbind(-1)
    # In place: pairs can be many millions.
    width = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).clamp_(min=0)
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    return width.mul_(height)


def box_iou(boxes: Float[Tensor, "*N R 4"], others: Float[Tensor, "*N S 4"]) -> Float[Tensor, "*N R S"]:
    """Intersection over union of every pair; 0 where both boxes are empty."""
    overlap = box_overlap(boxes, others)
    union = (box_area(boxes)[..., None] + box_area(others)[..., None, :]).sub_(overlap)
    return overlap.div_(union.clamp_(min=1e-6))


def take_boxes(boxes: Float[Tensor, "N R 4"], index: Int64[Tensor, "N S"]) -> Float[Tensor, "N S 4"]:
    """The boxes, or deltas, at the places that `index` names in each image."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def as_limits(sizes: Extents, device: torch.device) -> Float[Tensor, "N 4"]:
    """The sizes as a tensor."""
    if isinstance(sizes, Tensor):
        return sizes
    return torch.tensor([(width, height) * 2 for height, width in sizes], dtype=torch.float32, device=device)


def clip_each(boxes: Float[Tensor, "N R 4"], sizes: Extents) -> Float[Tensor, "N R 4"]:
    """The boxes of each image cut to it."""
    if isinstance(sizes, Tensor):
        return boxes.clamp(min=0).minimum(sizes[:, None])
    return torch.stack([clip_boxes(own, size) for own, size in zip(boxes, sizes, strict=True)])


def clip_boxes(boxes: Float[Tensor, "*R 4"], size: tuple[int, int]) -> Float[Tensor, "*R 4"]:
    """Boxes cut to an image of (height, width)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1
    )


def encode_boxes(
    anchors: Float[Tensor, "R 4"], boxes: Float[Tensor, "R 4"], stds: Stds
) -> Float[Tensor, "R 4"]:
    """Deltas (dx, dy, dw, dh) / stds that take each anchor to its box (arXiv 1506.01497, section 3.1.2)."""
    anchor_wh = anchors[:, 2:] - anchors[:, :2]
    box_wh = boxes[:, 2:] - boxes[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) * 0.5 / anchor_wh
    deltas = torch.cat([shift, torch.log(box_wh / anchor_wh)], dim=1)
    # Element by element: a tensor of the sizes would have to be copied to the GPU, which is a sync.
    return torch.stack([delta / std for delta, std in zip(deltas.unbind(1), stds, strict=True)], dim=1)


def decode_boxes(
    anchors: Float[Tensor, "*R 4"],
    deltas: Float[Tensor, "*R 4"],
    stds: Stds,
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "*R 4"]:
    """The boxes that `deltas` make of `anchors`, cut to an image by `clip_boxes` if its `size` is given."""
    deltas = torch.stack([delta * std for delta, std in zip(deltas.unbind(-1), stds, strict=True)], dim=-1)
    anchor_wh = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) * 0.5 + anchor_wh * deltas[..., :2]
    half = anchor_wh * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * 0.5
    boxes = torch.cat([centre - half, centre + half], dim=-1)
    return boxes if size is None else clip_boxes(boxes, size)
