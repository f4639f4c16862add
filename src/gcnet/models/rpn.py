"""Region proposal network (arXiv 1506.01497) on a feature pyramid.

N images, C channels, h x w map of a level, A anchors of an image over all levels, R proposals, B anchors of
an image that a training step samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.models.coordinates import anchor_steps, cell_anchors
from gcnet.models.layers import initialise
from gcnet.models.spec import Coordinates, RPNSpec
from gcnet.ops.boxes import Extents, as_limits, clip_each, decode_boxes, encode_boxes, take_boxes
from gcnet.ops.images import PAD_MULTIPLE
from gcnet.ops.matching import (
    Sampler,
    fill_up,
    ignored_regions,
    match_boxes,
    random_sample,
    sample_matches,
    take_rows,
)
from gcnet.ops.nms import grouped_nms, grouped_nms_static
from gcnet.types import Batch, Targets

POSITIVE_IOU, NEGATIVE_IOU, POSITIVE_FRACTION = 0.7, 0.3, 0.5

Predictions = tuple[Float[Tensor, "N _A"], Float[Tensor, "N _A 4"]]  # of one level


class RPN(nn.Module):
    """Scores every anchor for being an object, and moves the best to propose regions.

    `coordinates`: see `gcnet.models.coordinates`. `sample` chooses the anchors of a training step; tests put
    a deterministic one in its place.
    """

    def __init__(self, channels: int, spec: RPNSpec, *, coordinates: Coordinates = "continuous") -> None:
        super().__init__()
        self.spec = spec
        self.coordinates: Coordinates = coordinates
        self.sample: Sampler = random_sample
        convs = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(spec.convs)]
        stack = [nn.Sequential(conv, nn.ReLU(inplace=True)) for conv in convs]
        self.conv: nn.Module = convs[0] if spec.convs == 1 else nn.Sequential(*stack)
        self.relu: nn.Module = nn.ReLU(inplace=True) if spec.convs == 1 else nn.Identity()
        self.each = len(spec.anchor_ratios) * len(spec.anchor_scales)  # anchors at every position
        if not self.each:
            raise ValueError("there are no anchors: scales or ratios are missing")
        self.objectness = nn.Conv2d(channels, self.each, 1)
        self.deltas = nn.Conv2d(channels, self.each * 4, 1)
        self.outputs: nn.Module | None = None  # both as one layer, in an optimised copy
        initialise(self, partial(nn.init.normal_, std=0.01))

    def losses(
        self, features: list[Tensor], batch: Batch, targets: list[Targets], *, static: bool = False
    ) -> tuple[list[Float[Tensor, "_R 4"]], dict[str, Tensor]]:
        """Training proposals of each image (without gradient), `loss_rpn_cls` and `loss_rpn_box`.

        A row of zeros among the proposals is none.
        """
        with torch.no_grad():  # the whole maps serve the proposals; see `_run_at` for the losses
            levels = self.run(features)
        anchors = self._anchors(features)
        limits = self.spec.pre_nms_train, self.spec.proposals_train
        proposals = self._propose(levels, anchors, batch.extents, *limits, static)
        return proposals, self._losses(features, anchors, batch, targets)

    def predict(
        self, features: list[Tensor], sizes: Extents, *, static: bool = False
    ) -> list[Float[Tensor, "_R 4"]]:
        """Proposals of each image, best first, in pixels of the resized images, which are of `sizes`.

        With `static` shapes their number is fixed, and a row of zeros is none.
        """
        limits = self.spec.pre_nms_test, self.spec.proposals_test
        proposals = self._propose(self.run(features), self._anchors(features), sizes, *limits, static)
        return proposals if static else [boxes[boxes.any(dim=1)] for boxes in proposals]

    def run(self, features: list[Tensor]) -> list[Predictions]:
        """The network itself: logits and deltas of each level, anchors by row, column, ratio and scale."""
        levels = []
        for feature in features:
            hidden = self.relu(self.conv(feature))
            if (outputs := self.outputs) is None:
                logits, deltas = self.objectness(hidden), self.deltas(hidden)
            else:
                logits, deltas = outputs(hidden).split([self.each, 4 * self.each], dim=1)
            logits = logits.permute(0, 2, 3, 1).flatten(1)
            deltas = deltas.permute(0, 2, 3, 1).reshape(len(logits), -1, 4)
            levels.append((logits.float(), deltas.float()))
        return levels

    def _anchors(self, features: list[Tensor]) -> list[Float[Tensor, "_A 4"]]:
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        steps = anchor_steps(self.spec.anchor_strides, sizes, self.coordinates)
        return [
            level_anchors(
                size, stride, self.spec, features[0].device, step=step, coordinates=self.coordinates
            )
            for size, stride, step in zip(sizes, self.spec.anchor_strides, steps, strict=True)
        ]

    @torch.no_grad()
    def _propose(
        self,
        levels: list[Predictions],
        anchors: list[Tensor],
        sizes: Extents,
        pre_nms: int,
        count: int,
        static: bool,
    ) -> list[Float[Tensor, "_R 4"]]:
        all_boxes, all_scores, lengths = [], [], []
        for (logits, deltas), anchor in zip(levels, anchors, strict=True):
            best = logits.sigmoid().topk(torch.sym_min(pre_nms, anchor.shape[0]), dim=1)
            own = take_boxes(deltas, best.indices)
            all_scores.append(best.values)
            all_boxes.append(decode_boxes(anchor[best.indices], own, self.spec.stds))
            lengths.append(best.indices.shape[1])
        boxes, scores = clip_each(torch.cat(all_boxes, 1), sizes), torch.cat(all_scores, 1)
        level = [torch.full_like(own, number, dtype=torch.int64) for number, own in enumerate(all_scores)]
        groups = torch.cat(level, 1)
        real = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        # Boxes without area become zeros and come last, instead of being filtered: that would be a sync.
        boxes, scores = boxes.where(real[..., None], 0), scores.where(real, -1)
        if static:
            keep, filled = grouped_nms_static(
                boxes, scores, groups, self.spec.nms_threshold, count, sizes=lengths
            )
            return list(take_boxes(boxes, keep).where(filled[..., None], 0))
        return [
            own[grouped_nms(own, score, group, self.spec.nms_threshold)[:count]]
            for own, score, group in zip(boxes, scores, groups, strict=True)
        ]

    def _losses(
        self, features: list[Tensor], anchors: list[Tensor], batch: Batch, targets: list[Targets]
    ) -> dict[str, Tensor]:
        all_anchors = torch.cat(anchors)
        matches = self._match(features, all_anchors, batch, targets)
        chosen = sample_matches(
            matches, batch_size=self.spec.batch_size, positive_fraction=POSITIVE_FRACTION, sample=self.sample
        )
        logits, deltas = self._run_at(features, chosen.index)
        # Of anchors that are not positive these values do not matter.
        objects = take_rows(
            [target.boxes for target in targets], matches.gather(1, chosen.index).clamp(min=0)
        )
        sampled = all_anchors[chosen.index].flatten(0, 1)
        target_deltas = encode_boxes(sampled, objects.flatten(0, 1), self.spec.stds)
        target_deltas = target_deltas.view_as(deltas).where(chosen.positive[..., None], 0)
        cls_loss = F.binary_cross_entropy_with_logits(
            logits, chosen.positive.float(), weight=chosen.taken.float(), reduction="sum"
        )
        distance = F.smooth_l1_loss(deltas, target_deltas, reduction="none", beta=self.spec.smooth_l1_beta)
        box_loss = (distance * chosen.positive[..., None]).sum()
        count = chosen.taken.sum().clamp(min=1)
        return {"loss_rpn_cls": cls_loss / count, "loss_rpn_box": box_loss / count}

    @torch.no_grad()
    def _match(
        self, features: list[Tensor], anchors: Float[Tensor, "A 4"], batch: Batch, targets: list[Targets]
    ) -> Int64[Tensor, "N A"]:
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        limits = as_limits(batch.extents, anchors.device)
        valid = inside_padded(sizes, self.spec.anchor_strides, limits, each=self.each)
        if self.spec.anchors_inside:
            valid = valid & inside_image(anchors, limits)
        objects, real = fill_up([target.boxes for target in targets])
        return match_boxes(
            anchors.expand(len(batch), -1, -1),
            objects,
            positive_iou=POSITIVE_IOU,
            negative_iou=NEGATIVE_IOU,
            low_quality_iou=NEGATIVE_IOU,
            real=real,
            valid=valid,
            ignored=ignored_regions([target.ignored for target in targets]),
        )

    def _run_at(
        self, features: list[Tensor], index: Int64[Tensor, "N B"]
    ) -> tuple[Float[Tensor, "N B"], Float[Tensor, "N B 4"]]:
        """The network at the positions of some anchors alone: logits and deltas, with gradient.

        The losses use a few hundred of hundreds of thousands of anchors. Elsewhere the gradient of the
        maps is zero, and a convolution's backward over them would compute with zeros. Several convolutions
        read further around, and run everywhere.
        """
        if self.spec.convs > 1:
            logits, deltas = (torch.cat(parts, dim=1) for parts in zip(*self.run(features), strict=True))
            return logits.gather(1, index), take_boxes(deltas, index)
        place, ratio = index // self.each, index % self.each
        patches, start = [], 0
        for feature in features:
            patches.append(_patches(feature, place - start))
            start += feature.shape[-2] * feature.shape[-1]
        patch = torch.stack(patches).sum(dim=0).flatten(2)
        conv = cast(nn.Conv2d, self.conv)
        hidden = F.relu(F.linear(patch, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias))
        logits = F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias)
        deltas = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias).unflatten(2, (-1, 4))
        deltas = deltas.gather(2, ratio[..., None, None].expand(-1, -1, 1, 4))
        return logits.gather(2, ratio[..., None])[..., 0].float(), deltas[:, :, 0].float()


def level_anchors(
    size: tuple[int, int],
    stride: int,
    spec: RPNSpec,
    device: torch.device,
    *,
    step: tuple[int, int] | None = None,
    coordinates: Coordinates = "continuous",
) -> Float[Tensor, "A 4"]:
    """Anchors of `scale * stride` pixels for each ratio and scale, at multiples of `step` (`stride`).

    They go by row, column, ratio and scale.
    """
    # One number at a time: a tensor of them would have to be copied to the GPU, a synchronisation.
    roots = torch.stack([torch.full((), ratio, device=device) for ratio in spec.anchor_ratios]).sqrt()
    sides = [stride * scale for scale in spec.anchor_scales]
    shapes = [torch.stack([side / roots, side * roots], dim=1) for side in sides]
    shape = torch.stack(shapes, dim=1).flatten(0, 1)
    cell = cell_anchors(stride, shape, coordinates)
    down, across = step or (stride, stride)
    y, x = torch.meshgrid(
        torch.arange(size[0], device=device) * down,
        torch.arange(size[1], device=device) * across,
        indexing="ij",
    )
    centres = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
    return (centres + cell).view(-1, 4)


def inside_padded(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    limits: Float[Tensor, "N 4"],
    *,
    each: int = len(RPNSpec.anchor_ratios),
) -> Bool[Tensor, "N A"]:
    """Which anchors (`each` at every position of maps of `sizes`) lie on the image, not on padding.

    That is its size rounded up to 32, not the batch's common size.
    """
    flags = []
    width, height = ((limits[:, axis, None] / PAD_MULTIPLE).ceil() * PAD_MULTIPLE for axis in (0, 1))
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        down, across = (torch.arange(n, device=limits.device) * stride for n in (rows, columns))
        flag = (down < height)[:, :, None] & (across < width)[:, None]
        flags.append(flag.flatten(1).repeat_interleave(each, dim=1))
    return torch.cat(flags, dim=1)


def inside_image(anchors: Float[Tensor, "A 4"], limits: Float[Tensor, "N 4"]) -> Bool[Tensor, "N A"]:
    """Which anchors lie wholly inside each image."""
    return (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] < limits[:, None, 2:]).all(2)


def _patches(feature: Float[Tensor, "N C h w"], place: Int64[Tensor, "N B"]) -> Float[Tensor, "N B 9 C"]:
    """The 3x3 neighbourhoods of positions (row by row); zeros outside of the map."""
    count, channels, height, width = feature.shape
    offset = torch.arange(-1, 2, device=place.device)
    y = (place // width)[..., None] + offset.repeat_interleave(3)
    x = (place % width)[..., None] + offset.repeat(3)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    inside = inside & ((place >= 0) & (place < height * width))[..., None]
    image = torch.arange(count, device=place.device)[:, None, None]
    row = (image * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
    pixels = feature.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, row.flatten())
    return pixels.view(*row.shape, channels) * inside[..., None]
