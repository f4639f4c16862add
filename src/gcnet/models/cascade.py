"""The second stage of Cascade Mask R-CNN (arXiv 1712.00726): stages that each start where the last ended.

R regions of an image, K classes, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.models.box_head import GRID as BOX_GRID
from gcnet.models.box_head import BoxHead
from gcnet.models.mask_head import GRID as MASK_GRID
from gcnet.models.mask_head import MaskHead
from gcnet.models.pooler import pool_regions, with_images
from gcnet.models.postprocess import RegionDetections, attach_masks, select_in_batch
from gcnet.models.regions import Stds, mask_losses, sample_regions
from gcnet.models.roi_heads import STRIDES
from gcnet.ops.boxes import clip_boxes, decode_boxes
from gcnet.ops.matching import MISSING, Sampler, random_sample
from gcnet.types import Batch, Targets

Boxes = list[Float[Tensor, "_R 4"]]


class CascadeRoIHeads(nn.Module):
    """A box head and a mask head for each stage; box heads are class-agnostic.

    Args:
        ious: how much a region must overlap an object to be positive, for each stage.
        loss_weights: of the losses of each stage.
        stds: scale of the deltas of each stage.
        inclusive: see `gcnet.models.inclusive`.
        sample: chooses the regions of a training step; tests put a deterministic one in its place.
    """

    def __init__(
        self,
        box_heads: Sequence[BoxHead],
        mask_heads: Sequence[MaskHead],
        *,
        ious: Sequence[float] = (0.5, 0.6, 0.7),
        loss_weights: Sequence[float] = (1.0, 0.5, 0.25),
        stds: Sequence[Stds],
        batch_size: int = 512,
        positive_fraction: float = 0.25,
        nms_threshold: float = 0.5,
        detections: int = 100,
        finest_scale: float = 56.0,
        inclusive: bool = False,
        sample: Sampler = random_sample,
    ) -> None:
        super().__init__()
        self.box_heads, self.mask_heads = nn.ModuleList(box_heads), nn.ModuleList(mask_heads)
        self.num_classes = box_heads[0].num_classes
        self.ious, self.loss_weights, self.stds = ious, loss_weights, stds
        self.batch_size, self.positive_fraction = batch_size, positive_fraction
        self.nms_threshold, self.detections, self.sample = nms_threshold, detections, sample
        self.pool = partial(pool_regions, strides=STRIDES, finest_scale=finest_scale, inclusive=inclusive)

    def heads(self) -> tuple[list[BoxHead], list[MaskHead]]:
        return cast(list[BoxHead], list(self.box_heads)), cast(list[MaskHead], list(self.mask_heads))

    def losses(
        self, features: list[Tensor], proposals: Boxes, targets: list[Targets], batch: Batch
    ) -> dict[str, Tensor]:
        """`loss_cls`, `loss_box` and `loss_mask` of each stage, as `s0.loss_cls` and so on, weighted."""
        losses: dict[str, Tensor] = {}
        for stage, weight in enumerate(self.loss_weights):
            stage_losses, proposals = self._stage_losses(stage, features, proposals, targets, batch)
            losses |= {f"s{stage}.{name}": loss * weight for name, loss in stage_losses.items()}
        return losses

    def predict(
        self, features: list[Tensor], proposals: Boxes, batch: Batch, threshold: float
    ) -> list[RegionDetections]:
        """The detections of each image: classes by the mean of all heads, boxes by the last."""
        logits_of_stages, deltas = [], proposals[0].new_zeros(0)
        rois = with_images(proposals)
        for stage, head in enumerate(self.box_heads):
            if stage > 0:
                rois = torch.cat([rois[:, :1], self._refine(stage - 1, rois, deltas, batch)], dim=1)
            logits, deltas = head(self.pool(features, rois, size=BOX_GRID))
            logits_of_stages.append(logits)
        proposals = list(rois[:, 1:].split([len(boxes) for boxes in proposals]))
        scores = torch.stack(logits_of_stages).mean(dim=0).softmax(dim=1)
        found = select_in_batch(
            proposals,
            scores,
            deltas.expand(-1, self.num_classes, -1),
            batch.image_sizes,
            stds=self.stds[-1],
            score_threshold=threshold,
            nms_threshold=self.nms_threshold,
            limit=self.detections,
        )
        pooled = self.pool(features, with_images([f.boxes for f in found]), size=MASK_GRID)
        labels = torch.cat([f.labels for f in found])
        probs = torch.stack([head(pooled, labels).sigmoid() for head in self.mask_heads]).mean(dim=0)
        return attach_masks(found, probs)

    def _stage_losses(
        self, stage: int, features: list[Tensor], proposals: Boxes, targets: list[Targets], batch: Batch
    ) -> tuple[dict[str, Tensor], Boxes]:
        """The losses of one stage, and the proposals of the next: refined, zeros for the objects' own."""
        regions = sample_regions(
            proposals,
            targets,
            background=self.num_classes,
            iou=self.ious[stage],
            low_quality=False,
            stds=self.stds[stage],
            batch_size=self.batch_size,
            positive_fraction=self.positive_fraction,
            sample=self.sample,
        )
        box_head = cast(BoxHead, self.box_heads[stage])
        mask_head = cast(MaskHead, self.mask_heads[stage])
        logits, deltas = box_head(self.pool(features, regions.rois, size=BOX_GRID))
        losses = box_head.losses(logits, deltas, regions.labels, regions.wanted)
        most = int(self.batch_size * self.positive_fraction)
        losses |= mask_losses(mask_head, partial(self.pool, features), regions, targets, most)

        refined = self._refine(stage, regions.rois, deltas.detach(), batch)
        passed_on = ~regions.given & (regions.labels != MISSING)
        refined = refined.where(passed_on[:, None], 0)
        places = refined.new_zeros(len(targets) * self.batch_size, 4).index_copy(0, regions.place, refined)
        return losses, list(places.view(len(targets), self.batch_size, 4))

    def _refine(
        self, stage: int, rois: Float[Tensor, "R 5"], deltas: Float[Tensor, "R 1 4"], batch: Batch
    ) -> Float[Tensor, "R 4"]:
        """The boxes that a stage makes of its regions, cut to their images."""
        boxes = decode_boxes(rois[:, 1:], deltas[:, 0], self.stds[stage])
        for image, size in enumerate(batch.image_sizes):
            boxes = torch.where(rois[:, :1] == image, clip_boxes(boxes, size), boxes)
        return boxes
