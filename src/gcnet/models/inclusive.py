"""The box convention of mmdetection 1.x, in which the authors' files of 2019 were trained.

There a box contains its last pixel: [x1, y1, x2, y2] is x2 - x1 + 1 wide. It covers the same area as our
[x1, y1, x2 + 1, y2 + 1], and written like this its coder, IoU, NMS and choice of level are exactly ours. What
differs is gathered here: where anchors stand, where RoIAlign reads, and how boxes change with the size of the
picture, because it was the last pixel that was multiplied.

h x w map of a level; R regions. Boxes are ours throughout: xyxy with widths x2 - x1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SAMPLES = 2  # points that RoIAlign reads in each direction of a cell
SHIFT = 0.5  # of a map's pixel: RoIAlign took a pixel's value to stand at its corner, ours at its centre


def cell_anchors(stride: int, size: Float[Tensor, "A 2"]) -> Float[Tensor, "A 4"]:
    """Anchors of (width, height) at the first place of a map: around the middle of its pixels, rounded."""
    half, centre = (size - 1) * 0.5, (stride - 1) * 0.5
    return torch.cat([(centre - half).round(), (centre + half).round() + 1], dim=1)


def resize_boxes(boxes: Float[Tensor, "R 4"], x: float, y: float) -> Float[Tensor, "R 4"]:
    """Boxes in a picture that becomes `x` times as wide and `y` times as high."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1 * x, y1 * y, (x2 - 1) * x + 1, (y2 - 1) * y + 1], dim=1)
