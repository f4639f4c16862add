"""From class scores and deltas to detections, and back to pixels of the original image.

N images, R regions, K classes, D detections, M side of a mask.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gcnet.device import on_gpu
from gcnet.models.coordinates import resize_inclusive, whole_pixel_frames
from gcnet.models.spec import Coordinates, RoISpec
from gcnet.ops.boxes import Extents, Stds, clip_boxes, clip_each, decode_boxes, take_boxes
from gcnet.ops.nms import grouped_nms, grouped_nms_static, needs_more, soft_nms
from gcnet.types import Batch, Detections

Threshold = float | Float[Tensor, ""]  # a tensor for CUDA graphs, of which numbers become part

# Forty times the hundred that are kept, of up to 80,000 pairs: it is rare that one beyond them would be kept.
STATIC_CANDIDATES = 4096
FIRST_CANDIDATES = 1024  # that a GPU tries first
STATIC_SHARE = 4  # candidates for each detection that is kept, if more than a thousand are kept


def select_detections(
    boxes: Float[Tensor, "R 4"],
    scores: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R K 4"],
    *,
    size: tuple[int, int],
    stds: Stds,
    score_threshold: float,
    spec: RoISpec,
) -> Detections:
    """The best (region, class) pairs that score above the threshold, after NMS in each class, without masks.

    `size` is that of the resized image. `scores` has background as its last column.
    """
    region, label = (scores[:, :-1] > score_threshold).nonzero(as_tuple=True)
    score, box = scores[region, label], decode_boxes(boxes[region], deltas[region, label], stds, size)
    if spec.soft_nms is None:
        keep = grouped_nms(box, score, label, spec.nms_threshold)[: spec.detections]
        return Detections(box[keep], score[keep], label[keep], None, size)
    (keep,), (score,) = _suppress(box[None], score[None], label[None], spec)
    found = Detections(box[keep], score, label[keep], None, size)
    return found[score > 0]


def select_static(
    boxes: Float[Tensor, "N R 4"],
    scores: Float[Tensor, "N R K1"],
    deltas: Float[Tensor, "N R K 4"],
    real: Bool[Tensor, "N R"],
    *,
    sizes: Extents,
    stds: Stds,
    score_threshold: Threshold,
    spec: RoISpec,
) -> list[Detections]:
    """`select_detections` of N images with static shapes; their sizes are left to `to_original`.

    Boxes that are not `real` are no regions. Only the best `STATIC_CANDIDATES` pairs come to the NMS, more
    where more are kept. The number of detections is fixed: places that nothing was found for come last and
    score 0.
    """
    classes = deltas.shape[2]
    score, pair = _best_pairs(scores, real, score_threshold)

    def select(count: int) -> tuple[list[Tensor], Tensor]:
        """Of that many pairs: boxes, scores and labels, and whether more of them would find more."""
        own, region, label = score[:, :count], pair[:, :count] // classes, pair[:, :count] % classes
        delta = take_boxes(deltas.flatten(1, 2), pair[:, :count])
        box = take_boxes(boxes, region)
        box = clip_each(decode_boxes(box, delta, stds), sizes)
        keep, own = _suppress(box, own, label, spec)
        filled = own > 0
        found = [take_boxes(box, keep).where(filled[..., None], 0), own]
        found += [label.gather(1, keep).where(filled, 0)]
        return found, (own[:, -1:] < score[:, count : count + 1]).any()

    most = max(STATIC_CANDIDATES, STATIC_SHARE * spec.detections)
    few = max(FIRST_CANDIDATES, STATIC_SHARE * spec.detections)
    if not on_gpu(boxes):
        found, _ = select(most)
    else:
        # Pairs are compared with each other: a quarter of them is a sixteenth of the work.
        found, more = select(few)
        if needs_more(more):
            found, _ = select(most)
    return [Detections(box, score, label, None, (0, 0)) for box, score, label in zip(*found, strict=True)]


def _suppress(
    boxes: Float[Tensor, "N R 4"], scores: Float[Tensor, "N R"], labels: Int64[Tensor, "N R"], spec: RoISpec
) -> tuple[Int64[Tensor, "N L"], Float[Tensor, "N L"]]:
    """The best boxes after NMS, hard or soft, and their scores: 0 in places that nothing is left for."""
    soft = spec.soft_nms
    if soft is None:
        keep, filled = grouped_nms_static(boxes, scores, labels, spec.nms_threshold, spec.detections)
        return keep, scores.gather(1, keep).where(filled, 0)
    sigma = soft.sigma if soft.method == "gaussian" else None
    options = {"iou_threshold": spec.nms_threshold, "sigma": sigma, "min_score": soft.min_score}
    return soft_nms(boxes, scores, labels, spec.detections, **options)


def _best_pairs(
    scores: Float[Tensor, "N R K1"], real: Bool[Tensor, "N R"], threshold: Threshold
) -> tuple[Float[Tensor, "N RK"], Int64[Tensor, "N RK"]]:
    """Scores (0 where there is none) and numbers (region * K + class) of all pairs, best first."""
    counts = (scores[..., :-1] > threshold) & real[..., None]
    pairs = scores[..., :-1].where(counts, 0).flatten(1).sort(dim=1, descending=True, stable=True)
    return pairs.values, pairs.indices


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
