"""Anchor boxes of a feature pyramid (arXiv 1506.01497, section 3.1.1).

h x w map of a level; anchors in the order row, column, ratio.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcnet.models import inclusive as legacy
from gcnet.ops.images import padded_size

RATIOS = (0.5, 1.0, 2.0)  # height / width


def level_anchors(
    size: tuple[int, int], stride: int, scale: float, device: torch.device, *, inclusive: bool = False
) -> Float[Tensor, "A 4"]:
    """Anchors of `scale * stride` pixels in the three ratios, centred on multiples of `stride`.

    With `inclusive` they stand where mmdetection 1.x had them.
    """
    # Number by number: a tensor of them would have to be copied to a GPU, which waits.
    ratios = torch.stack([torch.full((), ratio, device=device) for ratio in RATIOS]).sqrt()
    side = stride * scale
    shape = torch.stack([side / ratios, side * ratios], dim=1)
    cell = legacy.cell_anchors(stride, shape) if inclusive else torch.cat([-shape, shape], dim=1) * 0.5
    y, x = torch.meshgrid(
        torch.arange(size[0], device=device) * stride,
        torch.arange(size[1], device=device) * stride,
        indexing="ij",
    )
    centres = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
    return (centres + cell).view(-1, 4)


def inside_padded(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    image_size: tuple[int, int],
    device: torch.device,
) -> Bool[Tensor, " A"]:
    """Which anchors stand on an image's own area: its size rounded up to 32, not the batch's common size."""
    flags = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        flag = torch.zeros(height, width, dtype=torch.bool, device=device)
        rows, columns = (-(-side // stride) for side in padded_size(image_size))
        flag[:rows, :columns] = True
        flags.append(flag.flatten().repeat_interleave(len(RATIOS)))
    return torch.cat(flags)


def inside_image(anchors: Float[Tensor, "A 4"], size: tuple[int, int]) -> Bool[Tensor, " A"]:
    """Which anchors lie wholly inside an image of (height, width)."""
    height, width = size
    x1, y1, x2, y2 = anchors.unbind(1)
    return (x1 >= 0) & (y1 >= 0) & (x2 < width) & (y2 < height)
