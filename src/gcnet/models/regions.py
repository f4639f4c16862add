"""The regions that a training step of the second stage looks at, and what they should become.

R regions, P positive ones, M side of a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gcnet.models.mask_head import MASK_SIZE
from gcnet.ops.boxes import encode_boxes
from gcnet.ops.matching import Sampler, match_boxes, sample_matches
from gcnet.ops.segmentations import crop_segmentations
from gcnet.types import Targets

Stds = tuple[float, float, float, float]


@dataclass(frozen=True)
class SampledRegions:
    """The regions of one image that a training step looks at, the positive ones first."""

    boxes: Float[Tensor, "R 4"]
    labels: Int64[Tensor, " R"]
    objects: Int64[Tensor, " P"]  # which object each positive region belongs to
    wanted: Float[Tensor, "P 4"]  # deltas from each positive region to its object
    given: Bool[Tensor, " R"]  # the objects' own boxes, which were put among the proposals

    @property
    def positive(self) -> Float[Tensor, "P 4"]:
        return self.boxes[: len(self.objects)]


@torch.no_grad()
def sample_regions(
    proposals: Float[Tensor, "R 4"],
    target: Targets,
    *,
    background: int,
    iou: float,
    low_quality: bool,
    stds: Stds,
    batch_size: int,
    positive_fraction: float,
    sample: Sampler,
) -> SampledRegions:
    """Matches proposals, with the objects themselves as the first of them, and samples a batch.

    With `low_quality` every object keeps its best proposal if that overlaps it by `iou`, also where the
    proposal overlaps another object more. `background` is the label of regions without an object.
    """
    matches = match_boxes(
        proposals,
        target.boxes,
        positive_iou=iou,
        negative_iou=iou,
        low_quality_iou=iou if low_quality else None,
    )
    own = torch.arange(len(target.boxes), device=matches.device)
    boxes, matches = torch.cat([target.boxes, proposals]), torch.cat([own, matches])
    positive, negative = sample_matches(
        matches, batch_size=batch_size, positive_fraction=positive_fraction, sample=sample
    )
    objects, chosen = matches[positive], torch.cat([positive, negative])
    return SampledRegions(
        boxes=boxes[chosen],
        labels=torch.cat([target.labels[objects], torch.full_like(negative, background)]),
        objects=objects,
        wanted=encode_boxes(boxes[positive], target.boxes[objects], stds),
        given=chosen < len(own),
    )


def mask_targets(target: Targets, regions: SampledRegions) -> Bool[Tensor, "P M M"]:
    """The outline of each positive region's object, cut to the region, on the CPU."""
    boxes, objects = regions.positive.cpu().numpy(), regions.objects.cpu().numpy()
    return torch.from_numpy(np.ascontiguousarray(crop_segmentations(target.masks, objects, boxes, MASK_SIZE)))
