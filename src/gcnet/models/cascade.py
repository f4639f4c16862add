"""The second stage of Cascade Mask R-CNN (arXiv 1712.00726): stages that each start where the last ended.

R regions of an image, K classes, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from gcnet.models.regions import Stds, mask_targets, sample_regions
from gcnet.models.roi_heads import STRIDES
from gcnet.ops.boxes import decode_boxes
from gcnet.ops.matching import Sampler, random_sample
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
        self.finest_scale, self.inclusive = finest_scale, inclusive

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
        for stage, head in enumerate(self.box_heads):
            if stage > 0:
                proposals = self._refine(stage - 1, proposals, deltas, batch)
            logits, deltas = head(self.pool(features, proposals, BOX_GRID))
            logits_of_stages.append(logits)
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
        pooled = self.pool(features, [f.boxes for f in found], MASK_GRID)
        labels = torch.cat([f.labels for f in found])
        probs = torch.stack([head(pooled, labels).sigmoid() for head in self.mask_heads]).mean(dim=0)
        return attach_masks(found, probs)

    def _stage_losses(
        self, stage: int, features: list[Tensor], proposals: Boxes, targets: list[Targets], batch: Batch
    ) -> tuple[dict[str, Tensor], Boxes]:
        """The losses of one stage, and the proposals of the next: refined, without the objects' own boxes."""
        regions = [
            sample_regions(
                boxes,
                target,
                background=self.num_classes,
                iou=self.ious[stage],
                low_quality=False,
                stds=self.stds[stage],
                batch_size=self.batch_size,
                positive_fraction=self.positive_fraction,
                sample=self.sample,
            )
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        boxes = [r.boxes for r in regions]
        box_head = cast(BoxHead, self.box_heads[stage])
        mask_head = cast(MaskHead, self.mask_heads[stage])
        logits, deltas = box_head(self.pool(features, boxes, BOX_GRID))
        labels = torch.cat([r.labels for r in regions])
        losses = box_head.losses(logits, deltas, labels, torch.cat([r.wanted for r in regions]))

        pooled = self.pool(features, [r.positive for r in regions], MASK_GRID)
        mask_logits = mask_head(pooled, labels[labels < self.num_classes])
        masks = torch.cat([mask_targets(t, r) for t, r in zip(targets, regions, strict=True)])
        losses |= mask_head.loss(mask_logits, masks.to(mask_logits.device))
        refined = self._refine(stage, boxes, deltas.detach(), batch)
        return losses, [box[~r.given] for box, r in zip(refined, regions, strict=True)]

    def _refine(self, stage: int, boxes: Boxes, deltas: Float[Tensor, "R 1 4"], batch: Batch) -> Boxes:
        """The boxes that a stage makes of its regions, cut to each image."""
        counts = [len(box) for box in boxes]
        return [
            decode_boxes(box, delta, self.stds[stage], size)
            for box, delta, size in zip(boxes, deltas[:, 0].split(counts), batch.image_sizes, strict=True)
        ]

    def pool(self, features: list[Tensor], boxes: Boxes, size: int) -> Tensor:
        return pool_regions(
            features,
            with_images(boxes),
            strides=STRIDES,
            size=size,
            finest_scale=self.finest_scale,
            inclusive=self.inclusive,
        )
