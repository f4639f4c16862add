"""Test-time augmentation: predicts an image in several sizes and mirrored, and merges the detections.

Boxes of all views are merged in the image. Then the mask head sees each of them in every view, and the mean
of its probabilities is the mask, as in detectron2: a union of masks would be as large as all their shifts.
R boxes of all views, D detections, M side of a mask, N views of one size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from gcnet.errors import check_threshold
from gcnet.models.detector import Detector
from gcnet.models.modes import in_eval_mode
from gcnet.models.postprocess import mask_frames, to_original, to_resized
from gcnet.models.tiled import WholeImage
from gcnet.ops.boxes import box_iou
from gcnet.ops.decode import as_rgb_array
from gcnet.ops.images import fit_size, resize_image
from gcnet.ops.nms import grouped_nms
from gcnet.types import Batch, Detections, stack_images

SAME = 0.5  # IoU from which on two boxes of a class vote for one
VOTERS = 1000  # boxes that are compared with all others at once


@dataclass(frozen=True)
class _Look:
    """Views of one size, which of them are mirrored, and their feature pyramid."""

    batch: Batch
    mirrored: Sequence[bool]
    features: list[Tensor]


class Augmented:
    """A detector that predicts an image in several sizes and, with `flip`, mirrored.

    Each of `scales` is a factor on the size that the model resizes images to. It has the methods for
    inference of the `detector`. With a `batch_size` of 2 or more an image and its mirror image are seen at
    once.
    """

    def __init__(
        self, detector: Detector, *, flip: bool, scales: Sequence[float], batch_size: int = 1
    ) -> None:
        self.detector, self.flip, self.scales, self.batch_size = detector, flip, scales, batch_size

    @property
    def spec(self) -> Any:
        return self.detector.spec

    def prepare(self, image: Any) -> WholeImage:
        """An image as `Detector.prepare` takes it."""
        return WholeImage(as_rgb_array(image))

    @torch.no_grad()
    def predict(self, whole: WholeImage, *, score_threshold: float = 0.05) -> list[Detections]:
        """The detections in the image, as a list of one."""
        check_threshold(score_threshold)
        model = in_eval_mode(self.detector)
        looks, found = [], []
        for batch, mirrored in self._batches(whole.image):
            look = _Look(batch, mirrored, model.features(batch))
            looks.append(look)
            found += _find(model, look, score_threshold)
        merged = _merge(found, model.spec.roi.nms_threshold)[: model.spec.roi.detections]
        if not model.roi_heads.mask_stages:
            return [merged]
        probs = torch.cat([_masks(model, look, merged) for look in looks]).mean(dim=0)
        frames = mask_frames(merged.boxes, probs, model.spec.coordinates)
        return [replace(merged, mask_probs=probs, frames=frames)]

    def _batches(self, image: UInt8[np.ndarray, "H W 3"]) -> Iterator[tuple[Batch, list[bool]]]:
        """The views, and which of them are mirrored; those together that are predicted at once."""
        spec, original = self.spec, (image.shape[0], image.shape[1])
        flips = [False, True] if self.flip else [False]
        for scale in self.scales:
            long, short = (round(side * scale) for side in spec.image_size)
            size = fit_size(original, (long, short), spec.resize)
            pixels = resize_image(image, size, spec.resize)
            for first in range(0, len(flips), self.batch_size):
                mirrored = flips[first : first + self.batch_size]
                stack = stack_images([pixels[:, ::-1] if flip else pixels for flip in mirrored])
                count = len(mirrored)
                batch = Batch(stack, [size] * count, [original] * count, range(count))
                yield batch.to(self.detector.mean.device), mirrored


def _find(model: Detector, look: _Look, score_threshold: float) -> Iterator[Detections]:
    """The boxes of each view, in pixels of the image."""
    batch, static = look.batch, model.static
    proposals = model.rpn.predict(look.features, batch.extents, static=static)
    found = model.roi_heads.find_boxes(
        look.features, proposals, batch.extents, score_threshold, static=static
    )
    for index, (one, mirrored) in enumerate(zip(found, look.mirrored, strict=True)):
        seen = to_original(one, batch, index, model.spec.coordinates)
        if mirrored:
            seen = replace(seen, boxes=_mirror(seen.boxes, seen.image_size[1]))
        yield seen[seen.scores > 0]  # with static shapes some rows are empty


def _merge(found: Sequence[Detections], nms_threshold: float) -> Detections:
    """The merged boxes of all views, each object once, best first.

    Each box becomes the mean of those of its class that overlap it ("box voting", arXiv 1505.01749, section
    5), then NMS keeps the best scores. Boxes of equal scores that overlap become one before: in an image that
    is its own mirror image, a box and its mirror image are as good, and neither is preferred.
    """
    boxes, scores, labels = (
        torch.cat([getattr(one, name) for one in found]) for name in ("boxes", "scores", "labels")
    )
    _, equals = torch.stack([labels, scores]).unique(dim=1, return_inverse=True)
    boxes = _vote(_vote(boxes, scores, labels), scores, equals)
    keep = grouped_nms(boxes, scores, labels, nms_threshold)
    return Detections(boxes[keep], scores[keep], labels[keep], None, found[0].image_size)


def _vote(
    boxes: Float[Tensor, "R 4"], scores: Float[Tensor, " R"], groups: Int64[Tensor, " R"]
) -> Float[Tensor, "R 4"]:
    """The mean, by score, of each box and those of its group that overlap it."""
    means = []
    for some, own in zip(boxes.split(VOTERS), groups.split(VOTERS), strict=True):
        weights = scores * ((box_iou(some, boxes) >= SAME) & (own[:, None] == groups))
        total = weights.sum(dim=1, keepdim=True)
        means.append(torch.where(total > 0, weights @ boxes / total, some))  # without area it overlaps none
    return torch.cat(means)


def _masks(model: Detector, look: _Look, merged: Detections) -> Float[Tensor, "N D M M"]:
    """The mask probabilities of all boxes in each view, turned back to the image."""
    boxes = []
    for index, mirrored in enumerate(look.mirrored):
        shown = _mirror(merged.boxes, merged.image_size[1]) if mirrored else merged.boxes
        boxes.append(to_resized(shown, look.batch, index, model.spec.coordinates))
    labels = merged.labels.repeat(len(boxes))
    probs = model.roi_heads.mask_probs(look.features, boxes, labels, static=model.static)
    views = zip(probs.unflatten(0, (len(boxes), len(merged))), look.mirrored, strict=True)
    return torch.stack([view.flip(-1) if mirrored else view for view, mirrored in views])


def _mirror(boxes: Float[Tensor, "D 4"], width: int) -> Float[Tensor, "D 4"]:
    """Boxes in the mirror image of an image of this width."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)
