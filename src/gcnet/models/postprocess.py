"""From class scores and deltas to the detections that are kept, and back to the picture as it was given.

R regions, K classes, D detections, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gcnet.models.inclusive import resize_boxes
from gcnet.models.mask_head import MASK_SIZE
from gcnet.ops.boxes import clip_boxes, decode_boxes
from gcnet.ops.nms import grouped_nms
from gcnet.types import Batch, Detections


@dataclass(frozen=True)
class RegionDetections:
    """Detections of one image in pixels of the resized image, best first."""

    boxes: Float[Tensor, "D 4"]
    scores: Float[Tensor, " D"]
    labels: Int64[Tensor, " D"]
    mask_probs: Float[Tensor, "D M M"]


def select_detections(
    boxes: Float[Tensor, "R 4"],
    scores: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R K 4"],
    *,
    size: tuple[int, int],
    stds: tuple[float, float, float, float],
    score_threshold: float,
    nms_threshold: float,
    limit: int,
) -> RegionDetections:
    """The best `limit` of all (region, class) pairs that score above the threshold, after NMS in each class.

    `scores` has background as its last column. The masks are empty until the mask head has seen the boxes.
    """
    region, label = (scores[:, :-1] > score_threshold).nonzero(as_tuple=True)
    score = scores[region, label]
    box = decode_boxes(boxes[region], deltas[region, label], stds, size)
    keep = grouped_nms(box, score, label, nms_threshold)[:limit]
    return RegionDetections(
        box[keep], score[keep], label[keep], box.new_zeros(len(keep), MASK_SIZE, MASK_SIZE)
    )


def select_in_batch(
    boxes: Sequence[Float[Tensor, "_R 4"]],
    scores: Float[Tensor, "S K1"],
    deltas: Float[Tensor, "S K 4"],
    sizes: Sequence[tuple[int, int]],
    *,
    stds: tuple[float, float, float, float],
    score_threshold: float,
    nms_threshold: float,
    limit: int,
) -> list[RegionDetections]:
    """`select_detections` for each image; `scores` and `deltas` hold the S regions of all images in a row."""
    counts = [len(box) for box in boxes]
    return [
        select_detections(
            box,
            score,
            delta,
            size=size,
            stds=stds,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            limit=limit,
        )
        for box, score, delta, size in zip(
            boxes, scores.split(counts), deltas.split(counts), sizes, strict=True
        )
    ]


def attach_masks(
    found: Sequence[RegionDetections], mask_probs: Float[Tensor, "S M M"]
) -> list[RegionDetections]:
    """The detections with their masks, which are given for all images in a row."""
    counts = [len(f.labels) for f in found]
    return [replace(f, mask_probs=probs) for f, probs in zip(found, mask_probs.split(counts), strict=True)]


def to_original(found: RegionDetections, batch: Batch, index: int, *, inclusive: bool = False) -> Detections:
    """Boxes divided by the resize factors of image `index`; masks, on a grid over the box, need none.

    With `inclusive` it is their last pixels that are divided, as in mmdetection 1.x.
    """
    x, y = batch.scale_factors(index)
    height, width = batch.original_sizes[index]
    if inclusive:
        boxes = clip_boxes(resize_boxes(found.boxes, 1 / x, 1 / y), (height, width))
    else:
        # Number by number: a tensor of them would have to be copied to a GPU, which waits.
        sides = zip(found.boxes.unbind(1), (x, y, x, y), strict=True)
        boxes = torch.stack([side / factor for side, factor in sides], dim=1)
    return Detections(
        boxes=boxes,
        scores=found.scores,
        labels=found.labels,
        mask_probs=found.mask_probs,
        image_size=(height, width),
    )
