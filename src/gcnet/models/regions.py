"""The regions that are sampled for a training step of the second stage, and their targets.

N images, R regions of all images, P positive ones, B sampled regions in each image, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from gcnet.models.heads import MASK_GRID, MASK_SIZE, MaskHead
from gcnet.models.spec import RoISpec
from gcnet.ops.boxes import Stds, encode_boxes
from gcnet.ops.mask_targets import crop_segmentations
from gcnet.ops.matching import (
    IGNORED,
    MISSING,
    Sampler,
    fill_up,
    ignored_regions,
    match_boxes,
    sample_matches,
    take_rows,
)
from gcnet.types import Targets


@dataclass(frozen=True)
class SampledRegions:
    """The regions sampled from a batch for a training step; of each image the positive ones first.

    With static shapes every image has B of them, some labelled `MISSING`; else it holds those that are there.
    """

    boxes: Float[Tensor, "R 4"]
    images: Int64[Tensor, " R"]
    labels: Int64[Tensor, " R"]
    objects: Int64[Tensor, " R"]  # which object of its image a positive region belongs to
    target_deltas: Float[Tensor, "R 4"]  # from a positive region to its object, zeros for others
    positive: Bool[Tensor, " R"]
    given: Bool[Tensor, " R"]  # the objects' own boxes, which were put among the proposals
    place: Int64[Tensor, " R"]  # among the N B places

    def __getitem__(self, rows: Tensor) -> SampledRegions:
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def rois(self) -> Float[Tensor, "R 5"]:
        """Image number and box of each region, as pooling takes them."""
        return torch.cat([self.images[:, None].to(self.boxes), self.boxes], dim=1)


@torch.no_grad()
def sample_regions(
    proposals: Sequence[Float[Tensor, "_R 4"]],
    targets: Sequence[Targets],
    spec: RoISpec,
    *,
    background: int,
    iou: float,
    low_quality: bool,
    stds: Stds,
    sample: Sampler,
    static: bool = False,
) -> SampledRegions:
    """Matches the proposals of each image, with its objects before them, and samples B = `spec.batch_size`.

    A proposal of zeros is none. With `low_quality` every object keeps its best proposal if that overlaps it
    by `iou`, also where the proposal overlaps another object more. `background` is the label of regions
    without an object.
    """
    matches, candidates = [], []
    all_boxes, _ = fill_up(proposals)
    all_objects, real = fill_up([target.boxes for target in targets])
    all_found = match_boxes(
        all_boxes,
        all_objects,
        positive_iou=iou,
        negative_iou=iou,
        low_quality_iou=iou if low_quality else None,
        real=real,
        valid=all_boxes.any(dim=2),
        ignored=ignored_regions([target.ignored for target in targets]),
    )
    for boxes, found, target in zip(proposals, all_found, targets, strict=True):
        own = torch.cat([torch.arange(len(target.boxes), device=boxes.device), found[: boxes.shape[0]]])
        matches.append(F.pad(own, (0, 1), value=IGNORED))  # an ignored candidate, so that there is one
        candidates.append(torch.cat([target.boxes, boxes]))
    match = pad_sequence(matches, batch_first=True, padding_value=IGNORED)
    chosen = sample_matches(
        match, batch_size=spec.batch_size, positive_fraction=spec.positive_fraction, sample=sample
    )

    objects = match.gather(1, chosen.index).where(chosen.positive, 0)
    given = chosen.taken & (chosen.index < real.sum(dim=1, keepdim=True))
    positive, taken = chosen.positive.flatten(), chosen.taken.flatten()
    boxes = take_rows(candidates, chosen.index).flatten(0, 1)
    labels = take_rows([target.labels for target in targets], objects).flatten()
    object_boxes = take_rows([target.boxes for target in targets], objects).flatten(0, 1)
    place = torch.arange(len(taken), device=taken.device)
    regions = SampledRegions(
        boxes=boxes.where(taken[:, None], 0),
        images=place // spec.batch_size,
        labels=labels.where(positive, background).where(taken, MISSING),
        objects=objects.flatten(),
        target_deltas=encode_boxes(boxes, object_boxes, stds).where(positive[:, None], 0),
        positive=positive,
        given=given.flatten(),
        place=place,
    )
    return regions if static else regions[taken.nonzero().flatten()]


def mask_losses(
    head: MaskHead,
    pool: Callable[..., Tensor],
    regions: SampledRegions,
    targets: Sequence[Targets],
    most: int,
    static: bool = False,
) -> dict[str, Tensor]:
    """The loss of a mask head on the positive regions, at most `most` of each image.

    `pool` is a function of `gcnet.models.pooler` of some features, to be called with regions and `size`.
    With `static` shapes the head runs on `most` of each image, positive or not.
    """
    if static:
        rows = torch.arange(len(regions.labels), device=regions.labels.device)
        rows = rows.view(len(targets), -1)[:, :most].flatten()
    else:
        rows = regions.positive.nonzero().flatten()
    chosen = regions[rows]
    logits = head(pool(chosen.rois, size=MASK_GRID), chosen.labels.clamp(0, head.num_classes - 1))
    masks = mask_targets(targets, chosen).to(logits.device, non_blocking=True)
    return head.loss(logits, masks, chosen.positive)


def mask_targets(targets: Sequence[Targets], regions: SampledRegions) -> Bool[Tensor, "R M M"]:
    """The mask target of each positive region; other rows are arbitrary.

    It is read from the outlines that a loader drew; where they are missing, it is drawn now, on the CPU.
    """
    if any(target.outlines is None for target in targets):
        return _draw_targets(targets, regions)
    outlines = pad_sequence([target.outlines for target in targets], batch_first=True)  # type: ignore[misc]
    frames = pad_sequence([target.frames for target in targets], batch_first=True)  # type: ignore[misc]
    most = outlines.shape[1]
    if most == 0:
        return torch.zeros(len(regions.boxes), MASK_SIZE, MASK_SIZE, dtype=torch.bool, device=outlines.device)
    which = regions.images * most + regions.objects
    low, high = frames.flatten(0, 1)[which].split(2, dim=1)
    scale = outlines.shape[-1] / (high - low).clamp(min=1e-3)
    boxes = (regions.boxes.unflatten(1, (2, 2)) - low[:, None]) * scale[:, None]
    boxes = boxes.flatten(1).where(regions.positive[:, None], 0)  # the frames of others are arbitrary
    rois = torch.cat([which[:, None].to(boxes), boxes], dim=1)
    pixels = outlines.flatten(0, 1)[:, None].float()
    from torchvision.ops import roi_align  # slow to import, and inference does without

    return roi_align(pixels, rois, MASK_SIZE, 1.0, 0, aligned=True)[:, 0] >= 127.5


def _draw_targets(targets: Sequence[Targets], regions: SampledRegions) -> Bool[Tensor, "R M M"]:
    boxes, objects = regions.boxes.cpu().numpy(), regions.objects.cpu().numpy()
    images = np.where(regions.positive.cpu().numpy(), regions.images.cpu().numpy(), -1)
    masks = np.zeros((len(boxes), MASK_SIZE, MASK_SIZE), bool)
    for image, target in enumerate(targets):
        rows = images == image
        masks[rows] = crop_segmentations(target.masks, objects[rows], boxes[rows], MASK_SIZE)
    return torch.from_numpy(masks)
