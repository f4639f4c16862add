"""Non-maximum suppression within groups (classes or pyramid levels).

R boxes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gcnet.ops.compiled import nms

# From here on the coordinate offsets of `grouped_nms` would cost float32 precision; upstream switches here.
SPLIT_THRESHOLD = 10_000


def grouped_nms(
    boxes: Float[Tensor, "R 4"],
    scores: Float[Tensor, " R"],
    groups: Int64[Tensor, " R"],
    iou_threshold: float,
) -> Int64[Tensor, " K"]:
    """Indices of the boxes kept, best score first; only boxes of one group suppress each other.

    A box goes when its overlap with a better one is strictly greater than `iou_threshold`.
    """
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if len(boxes) < SPLIT_THRESHOLD:
        # Shifted far apart, groups cannot overlap, and one call may serve them all.
        boxes = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
        if boxes.device.type != "cpu":
            return nms(boxes, scores, iou_threshold)
    # A call for each group does not compare boxes of different groups: a fifth of the pairs of five levels.
    kept = [
        members[nms(boxes[members], scores[members], iou_threshold)]
        for members in ((groups == group).nonzero().flatten() for group in groups.unique())
    ]
    keep = torch.cat(kept).sort().values
    return keep[scores[keep].argsort(descending=True, stable=True)]
