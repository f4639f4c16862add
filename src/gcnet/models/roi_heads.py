"""The second stage of Mask R-CNN (arXiv 1703.06870): regions in, losses or detections out.

R regions, G objects, K classes, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.models.box_head import GRID as BOX_GRID
from gcnet.models.box_head import BoxHead
from gcnet.models.mask_head import GRID as MASK_GRID
from gcnet.models.mask_head import MaskHead
from gcnet.models.pooler import pool_regions, with_images
from gcnet.models.postprocess import RegionDetections, attach_masks, select_in_batch
from gcnet.models.regions import SampledRegions, mask_losses, sample_regions
from gcnet.ops.matching import Sampler, random_sample
from gcnet.types import Batch, Targets

STRIDES = (4, 8, 16, 32)
BOX_STDS = (0.1, 0.1, 0.2, 0.2)
POSITIVE_IOU = 0.5


class RoIHeads(nn.Module):
    """A box head on all regions, and a mask head on those that hold an object.

    `inclusive`: see `gcnet.models.inclusive`. `sample` chooses the regions of a training step; tests put a
    deterministic one in its place.
    """

    def __init__(
        self,
        box_head: BoxHead,
        mask_head: MaskHead,
        *,
        batch_size: int = 512,
        positive_fraction: float = 0.25,
        nms_threshold: float = 0.5,
        detections: int = 100,
        finest_scale: float = 56.0,
        inclusive: bool = False,
        sample: Sampler = random_sample,
    ) -> None:
        super().__init__()
        self.box_head, self.mask_head = box_head, mask_head
        self.batch_size, self.positive_fraction = batch_size, positive_fraction
        self.nms_threshold, self.detections, self.sample = nms_threshold, detections, sample
        self.pool = partial(pool_regions, strides=STRIDES, finest_scale=finest_scale, inclusive=inclusive)

    def heads(self) -> tuple[list[BoxHead], list[MaskHead]]:
        return [self.box_head], [self.mask_head]

    def losses(
        self,
        features: list[Tensor],
        proposals: list[Float[Tensor, "_R 4"]],
        targets: list[Targets],
        batch: Batch,
    ) -> dict[str, Tensor]:
        """`loss_cls`, `loss_box` and `loss_mask`."""
        regions = self._sample(proposals, targets)
        logits, deltas = self.box_head(self.pool(features, regions.rois, size=BOX_GRID))
        losses = self.box_head.losses(logits, deltas, regions.labels, regions.wanted)

        most = int(self.batch_size * self.positive_fraction)
        return losses | mask_losses(self.mask_head, partial(self.pool, features), regions, targets, most)

    def predict(
        self, features: list[Tensor], proposals: list[Float[Tensor, "_R 4"]], batch: Batch, threshold: float
    ) -> list[RegionDetections]:
        """The detections of each image, in pixels of the resized image."""
        logits, deltas = self.box_head(self.pool(features, with_images(proposals), size=BOX_GRID))
        found = self.select(proposals, logits, deltas, batch, threshold)
        pooled = self.pool(features, with_images([f.boxes for f in found]), size=MASK_GRID)
        probs = self.mask_head(pooled, torch.cat([f.labels for f in found])).sigmoid()
        return attach_masks(found, probs)

    def select(
        self,
        proposals: list[Float[Tensor, "_R 4"]],
        logits: Float[Tensor, "S K1"],
        deltas: Float[Tensor, "S K 4"],
        batch: Batch,
        threshold: float,
    ) -> list[RegionDetections]:
        """The best of all regions and classes of each image, without masks yet."""
        return select_in_batch(
            proposals,
            logits.softmax(dim=1),
            deltas,
            batch.image_sizes,
            stds=BOX_STDS,
            score_threshold=threshold,
            nms_threshold=self.nms_threshold,
            limit=self.detections,
        )

    def _sample(self, proposals: Sequence[Float[Tensor, "_R 4"]], targets: list[Targets]) -> SampledRegions:
        return sample_regions(
            proposals,
            targets,
            background=self.box_head.num_classes,
            iou=POSITIVE_IOU,
            low_quality=True,
            stds=BOX_STDS,
            batch_size=self.batch_size,
            positive_fraction=self.positive_fraction,
            sample=self.sample,
        )
