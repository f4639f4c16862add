"""The second stage: regions in, losses or detections out.

Mask R-CNN (arXiv 1703.06870) has one stage, Cascade R-CNN (arXiv 1712.00726) several, each of which starts
from the boxes of the one before. Mask heads can be left out.
R regions, K classes, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from gcnet.device import on_gpu
from gcnet.models.heads import BOX_GRID, MASK_GRID, BoxHead, MaskHead
from gcnet.models.pooler import Mosaic, lay_out, pool_everywhere, pool_regions, with_images
from gcnet.models.postprocess import Threshold, select_detections, select_static
from gcnet.models.regions import SampledRegions, mask_losses, sample_regions
from gcnet.models.spec import CascadeSpec, Coordinates, RoISpec
from gcnet.ops.boxes import Extents, clip_boxes, decode_boxes
from gcnet.ops.matching import MISSING, Sampler, random_sample
from gcnet.types import Batch, Detections, Targets

STRIDES = (4, 8, 16, 32)
CASCADE_BETA = 1.0  # of the smooth L1 loss of boxes

Boxes = Sequence[Float[Tensor, "_R 4"]]  # of each image
Features = list[Tensor] | Mosaic


class RoIHeads(nn.Module):
    """Stages of box heads on all regions, and mask heads on those that hold an object.

    With a `cascade` there is a box head and a mask head for each of its stages, and deltas are the same for
    all classes. `coordinates`: see `gcnet.models.coordinates`. `sample` chooses the regions of a training
    step; tests put a deterministic one in its place.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        spec: RoISpec,
        cascade: CascadeSpec | None = None,
        *,
        coordinates: Coordinates = "continuous",
    ) -> None:
        super().__init__()
        self.spec = spec if cascade is None else replace(spec, smooth_l1_beta=CASCADE_BETA)
        self.stages = cascade or CascadeSpec(ious=(0.5,), loss_weights=(1.0,), stds=(spec.stds,))
        count = len(self.stages.ious)
        if not count == len(self.stages.loss_weights) == len(self.stages.stds) > 0:
            raise ValueError("each stage of a cascade has its IoU, its weight in the loss and its stds")
        self.is_cascade, self.num_classes = cascade is not None, num_classes
        agnostic = self.is_cascade if spec.class_agnostic is None else spec.class_agnostic
        self.sample: Sampler = random_sample
        self.continuous = coordinates == "continuous"
        options = {"strides": STRIDES, "coordinates": coordinates, "samples": spec.sampling}
        if spec.aggregate is None:
            self.pool = partial(pool_regions, finest_scale=spec.finest_scale, **options)
        else:
            self.pool = partial(pool_everywhere, **options)
        boxes = [BoxHead(channels, num_classes, self.spec, class_agnostic=agnostic) for _ in range(count)]
        masks = [MaskHead(channels, num_classes, spec) for _ in range(count if spec.masks else 0)]
        # Named as in all model files: `box_head`, or in a cascade `box_heads.0`, `box_heads.1`, ...
        for kind, heads in (("box", boxes), ("mask", masks)):
            if self.is_cascade:
                self.add_module(f"{kind}_heads", nn.ModuleList(heads))
            elif heads:
                self.add_module(f"{kind}_head", heads[0])

    @property
    def box_stages(self) -> list[BoxHead]:
        """The box head of each stage."""
        return [module for module in self.modules() if isinstance(module, BoxHead)]

    @property
    def mask_stages(self) -> list[MaskHead]:
        """The mask head of each stage; empty without masks."""
        return [module for module in self.modules() if isinstance(module, MaskHead)]

    def losses(
        self,
        features: list[Tensor],
        proposals: Boxes,
        targets: list[Targets],
        batch: Batch,
        *,
        static: bool = False,
    ) -> dict[str, Tensor]:
        """`loss_cls`, `loss_box` and, with mask heads, `loss_mask`.

        Those of a cascade are named `s0.loss_cls` and so on, and weighted. A proposal of zeros is none.
        """
        losses: dict[str, Tensor] = {}
        pool = partial(self.pool, self._maps(features, static), static=static)
        box_heads, mask_heads = self.box_stages, self.mask_stages
        for stage, weight in enumerate(self.stages.loss_weights):
            regions = self.sample_regions(stage, proposals, targets, static=static)
            logits, deltas = box_heads[stage](pool(regions.rois, size=BOX_GRID))
            own = box_heads[stage].losses(logits, deltas, regions.labels, regions.target_deltas)
            if mask_heads:
                most = int(self.spec.batch_size * self.spec.positive_fraction)
                own |= mask_losses(mask_heads[stage], pool, regions, targets, most, static)
            prefix = f"s{stage}." if self.is_cascade else ""
            losses |= {prefix + name: loss * weight for name, loss in own.items()}
            if stage + 1 < len(box_heads):
                deltas = box_heads[stage].choose_deltas(logits, deltas.detach(), regions.labels)
                proposals = self._next_proposals(stage, regions, deltas, batch)
        return losses

    def predict(
        self,
        features: list[Tensor],
        proposals: Boxes,
        sizes: Extents,
        threshold: Threshold,
        *,
        static: bool = False,
    ) -> list[Detections]:
        """The detections of each image, in pixels of the resized images, which are of `sizes`."""
        maps = self._maps(features, static)
        found = self.find_boxes(maps, proposals, sizes, threshold, static=static)
        if not self.mask_stages:
            return found
        labels = torch.cat([f.labels for f in found])
        probs = self.mask_probs(maps, [f.boxes for f in found], labels, static=static)
        parts = probs.split([f.labels.shape[0] for f in found])
        return [replace(f, mask_probs=part) for f, part in zip(found, parts, strict=True)]

    def find_boxes(
        self,
        features: Features,
        proposals: Boxes,
        sizes: Extents,
        threshold: Threshold,
        *,
        static: bool = False,
    ) -> list[Detections]:
        """The detections of each image without their masks, in pixels of the resized images.

        Of several stages, the mean of all logits gives the classes, and the last deltas give the boxes.
        """
        pool = partial(self.pool, features, static=static)
        rois, all_logits = with_images(proposals), []
        real = rois[:, 1:].any(dim=1)  # a stage can make zeros of a region, but of zeros nothing else
        deltas = rois.new_zeros(0)
        for stage, head in enumerate(self.box_stages):
            if stage > 0:
                deltas = self.box_stages[stage - 1].choose_deltas(all_logits[-1], deltas)
                rois = torch.cat([rois[:, :1], self._refine(stage - 1, rois, deltas, sizes)], dim=1)
            logits, deltas = head(pool(rois, size=BOX_GRID))
            all_logits.append(logits)
        scores = torch.stack(all_logits).mean(dim=0).softmax(dim=1)
        deltas = deltas.expand(-1, self.num_classes, -1)
        options = {"stds": self.stages.stds[-1], "score_threshold": threshold, "spec": self.spec}
        if static:
            parts = (part.unflatten(0, (len(proposals), -1)) for part in (rois[:, 1:], scores, deltas, real))
            return select_static(*parts, sizes=sizes, **options)
        counts = [boxes.shape[0] for boxes in proposals]
        each = zip(*(part.split(counts) for part in (rois[:, 1:], scores, deltas)), strict=True)
        return [select_detections(*own, size=size, **options) for own, size in zip(each, sizes, strict=True)]  # type: ignore[arg-type]

    def mask_probs(
        self,
        features: Features,
        boxes: Boxes,
        labels: Int64[Tensor, " S"],
        *,
        static: bool = False,
    ) -> Float[Tensor, "S M M"]:
        """The mask of each box of all images in a row: the mean of the probabilities of all stages."""
        pooled = self.pool(features, with_images(boxes), size=MASK_GRID, static=static)
        return torch.stack([head(pooled, labels).sigmoid() for head in self.mask_stages]).mean(dim=0)

    def _maps(self, features: list[Tensor], static: bool) -> Features:
        """What regions are pooled from; a GPU reads all levels in one go."""
        fits = self.continuous and self.spec.aggregate is None
        in_one_go = static and fits and on_gpu(features[0])
        return lay_out(features[: len(STRIDES)]) if in_one_go else features

    def sample_regions(
        self, stage: int, proposals: Boxes, targets: list[Targets], *, static: bool = False
    ) -> SampledRegions:
        """The regions that are sampled for a training step of a stage."""
        return sample_regions(
            proposals,
            targets,
            self.spec,
            background=self.num_classes,
            iou=self.stages.ious[stage],
            low_quality=not self.is_cascade,
            stds=self.stages.stds[stage],
            sample=self.sample,
            static=static,
        )

    def _next_proposals(
        self, stage: int, regions: SampledRegions, deltas: Float[Tensor, "R 1 4"], batch: Batch
    ) -> Boxes:
        """The boxes that a stage gives the next one, without the objects' own; zeros are none."""
        refined = self._refine(stage, regions.rois, deltas, batch.extents)
        passed_on = ~regions.given & (regions.labels != MISSING)
        refined = refined.where(passed_on[:, None], 0)
        images, places = len(batch), self.spec.batch_size
        boxes = refined.new_zeros(images * places, 4).index_copy(0, regions.place, refined)
        return list(boxes.view(images, places, 4))

    def _refine(
        self,
        stage: int,
        rois: Float[Tensor, "R 5"],
        deltas: Float[Tensor, "R 1 4"],
        sizes: Extents,
    ) -> Float[Tensor, "R 4"]:
        """The boxes after a stage, cut to their images."""
        boxes = decode_boxes(rois[:, 1:], deltas[:, 0], self.stages.stds[stage])
        if isinstance(sizes, Tensor):
            return boxes.clamp(min=0).minimum(sizes[rois[:, 0].long()])
        for image, size in enumerate(sizes):
            boxes = torch.where(rois[:, :1] == image, clip_boxes(boxes, size), boxes)
        return boxes
