"""From class scores and deltas to detections, and back to pixels of the original image.

R regions, K classes, D detections, M side of a mask.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gcnet.models.coordinates import resize_inclusive, whole_pixel_frames
from gcnet.models.spec import Coordinates, RoISpec
from gcnet.ops.boxes import clip_boxes, decode_boxes
from gcnet.ops.nms import grouped_nms, grouped_nms_static
from gcnet.types import Batch, Detections

# Forty times the hundred that are kept, of up to 80,000 pairs: it is rare that one beyond them would be kept.
STATIC_CANDIDATES = 4096
STATIC_SHARE = 4  # candidates for each detection that is kept, if more than a thousand are kept


def select_detections(
    boxes: Float[Tensor, "R 4"],
    scores: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R K 4"],
    *,
    size: tuple[int, int],
    stds: tuple[float, float, float, float],
    score_threshold: float,
    spec: RoISpec,
    static: bool = False,
) -> Detections:
    """The best (region, class) pairs that score above the threshold, after NMS in each class, without masks.

    `size` is that of the resized image. `scores` has background as its last column. A box of zeros is no
    region. With `static` shapes only the best `STATIC_CANDIDATES` pairs come to the NMS, more where more are
    kept; the number of detections is fixed: places that nothing was found for come last and score 0.
    """
    if static:
        count = max(STATIC_CANDIDATES, STATIC_SHARE * spec.detections)
        score, pair = _best_pairs(boxes, scores, score_threshold, count)
        region, label = pair // deltas.shape[1], pair % deltas.shape[1]
    else:
        region, label = (scores[:, :-1] > score_threshold).nonzero(as_tuple=True)
        score = scores[region, label]
    box = decode_boxes(boxes[region], deltas[region, label], stds, size)
    if not static:
        keep = grouped_nms(box, score, label, spec.nms_threshold)[: spec.detections]
        return Detections(box[keep], score[keep], label[keep], None, size)
    keep, filled = grouped_nms_static(box, score, label, spec.nms_threshold, spec.detections)
    filled = filled & (score[keep] > 0)
    box, score, label = box[keep].where(filled[:, None], 0), score[keep].where(filled, 0), label[keep]
    return Detections(box, score, label.where(filled, 0), None, size)


def _best_pairs(
    boxes: Float[Tensor, "R 4"], scores: Float[Tensor, "R K1"], threshold: float, count: int
) -> tuple[Float[Tensor, " L"], Int64[Tensor, " L"]]:
    """Scores (0 where there is none) and numbers (region * K + class) of the best pairs, best first."""
    counts = (scores[:, :-1] > threshold) & boxes.any(dim=1)[:, None]
    best = scores[:, :-1].where(counts, 0).flatten().sort(descending=True, stable=True)
    return best.values[:count], best.indices[:count]


def to_original(
    found: Detections, batch: Batch, index: int, coordinates: Coordinates = "continuous"
) -> Detections:
    """Boxes of a resized image, divided by the factors of image `index`; masks, over the boxes, need none.

    Of "inclusive" boxes it is the last pixels that are divided.
    """
    x, y = batch.scale_factors(index)
    height, width = batch.original_sizes[index]
    if coordinates == "inclusive":
        boxes = clip_boxes(resize_inclusive(found.boxes, 1 / x, 1 / y), (height, width))
    else:
        # One side at a time: a tensor of factors would have to be copied to the GPU, a synchronisation.
        sides = zip(found.boxes.unbind(1), (x, y, x, y), strict=True)
        boxes = torch.stack([side / factor for side, factor in sides], dim=1)
    frames = None if found.mask_probs is None else mask_frames(boxes, found.mask_probs, coordinates)
    return replace(found, boxes=boxes, image_size=(height, width), frames=frames)


def to_resized(
    boxes: Float[Tensor, "D 4"], batch: Batch, index: int, coordinates: Coordinates = "continuous"
) -> Float[Tensor, "D 4"]:
    """Boxes of the image as it was given in pixels of the resized one: what `to_original` undoes."""
    x, y = batch.scale_factors(index)
    if coordinates == "inclusive":
        return resize_inclusive(boxes, x, y)
    sides = zip(boxes.unbind(1), (x, y, x, y), strict=True)
    return torch.stack([side * factor for side, factor in sides], dim=1)


def mask_frames(
    boxes: Float[Tensor, "D 4"], probs: Float[Tensor, "D M M"], coordinates: Coordinates
) -> Float[Tensor, "D 4"] | None:
    """The boxes that masks lie over, if not the detections' boxes."""
    return whole_pixel_frames(boxes, probs.shape[-1]) if coordinates == "torchvision" else None
