"""The pixel conventions of other libraries: anchors, RoIAlign, resized boxes, pasted masks.

"continuous" is the convention of mmdetection from 2.0 on, of detectron2, and of this package; it needs
nothing from here.

"inclusive" is that of mmdetection 1.x, with which the authors' files of 2019 were trained. A box includes its
last pixel: [x1, y1, x2, y2] is x2 - x1 + 1 wide, and covers the same area as our [x1, y1, x2 + 1, y2 + 1]. If
it is written like this, its coder, IoU, NMS and choice of level are exactly ours. Different are the positions
of anchors, the positions that RoIAlign reads, and how boxes are scaled with the image, because 1.x scaled the
index of the last pixel.

"torchvision": anchors are rounded, and their distance is the padded image's side divided by the map's,
rounded down; RoIAlign reads half a pixel of the map further right and below, and at least one pixel; masks
are drawn over whole pixels.

h x w map of a level; R regions, D detections. Boxes are ours throughout: xyxy with widths x2 - x1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gcnet.models.spec import Coordinates

SAMPLES = 2  # points that RoIAlign reads in each direction of a cell, in both
SHIFT = 0.5  # of a map's pixel: RoIAlign took a pixel's value to stand at its corner, ours at its centre


def cell_anchors(stride: int, size: Float[Tensor, "A 2"], coordinates: Coordinates) -> Float[Tensor, "A 4"]:
    """Anchors of (width, height) at the first position of a map."""
    if coordinates != "inclusive":
        anchors = torch.cat([-size, size], dim=1) * 0.5
        return anchors.round() if coordinates == "torchvision" else anchors
    half, centre = (size - 1) * 0.5, (stride - 1) * 0.5  # around the middle of its pixels
    return torch.cat([(centre - half).round(), (centre + half).round() + 1], dim=1)


def anchor_steps(
    strides: tuple[int, ...], sizes: list[tuple[int, int]], coordinates: Coordinates
) -> list[tuple[int, int]]:
    """The distance of anchors on each level, down and across, for maps of `sizes`."""
    if coordinates != "torchvision":
        return [(stride, stride) for stride in strides]
    height, width = (side * strides[0] for side in sizes[0])
    return [(height // h, width // w) for h, w in sizes]


def shift_regions(
    regions: Float[Tensor, "R 4"], stride: int, coordinates: Coordinates
) -> Float[Tensor, "R 4"]:
    """Regions where our RoIAlign reads what another one reads in the given ones."""
    if coordinates == "continuous":
        return regions
    corner, size = regions[:, :2], regions[:, 2:] - regions[:, :2]
    if coordinates == "torchvision":
        size = size.clamp(min=stride)
    corner = corner + SHIFT * stride
    return torch.cat([corner, corner + size], dim=1)


def resize_inclusive(boxes: Float[Tensor, "R 4"], x: float, y: float) -> Float[Tensor, "R 4"]:
    """Inclusive boxes in an image that becomes `x` times as wide and `y` times as high."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1 * x, y1 * y, (x2 - 1) * x + 1, (y2 - 1) * y + 1], dim=1)


def whole_pixel_frames(boxes: Float[Tensor, "D 4"], grid: int) -> Float[Tensor, "D 4"]:
    """Where torchvision draws the masks of boxes, `grid` cells a side.

    A cell is added all around, the box of all cells is cut to whole pixels, and both ends are within.
    """
    centre, half = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
    half = half * ((grid + 2) / grid)
    low, high = (centre - half).trunc(), (centre + half).trunc()
    size = (high - low + 1).clamp(min=1)
    cell = size / (grid + 2)
    return torch.cat([low + cell, low + size - cell], dim=1)
