"""Region proposal network (arXiv 1506.01497) on a feature pyramid.

N images, C channels, h x w map of a level, A anchors of an image over all levels, R proposals.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.models.anchors import RATIOS, inside_image, inside_padded, level_anchors
from gcnet.ops.boxes import decode_boxes, encode_boxes
from gcnet.ops.matching import Sampler, match_boxes, random_sample, sample_matches
from gcnet.ops.nms import grouped_nms
from gcnet.types import Batch, Targets

STRIDES = (4, 8, 16, 32, 64)
BOX_STDS = (1.0, 1.0, 1.0, 1.0)
POSITIVE_IOU, NEGATIVE_IOU, POSITIVE_FRACTION = 0.7, 0.3, 0.5

Predictions = tuple[Float[Tensor, "N _A"], Float[Tensor, "N _A 4"]]  # of one level


class RPN(nn.Module):
    """Scores every anchor for being an object, and moves the best to propose regions.

    With `anchors_inside` only anchors that lie inside the image are trained on. The box loss is L1, or smooth
    L1 if `smooth_l1_beta` is not zero. `inclusive`: see `gcnet.models.inclusive`. `sample` chooses the
    anchors of a training step; tests put a deterministic one in its place.
    """

    def __init__(
        self,
        channels: int,
        *,
        anchor_scale: float = 8.0,
        pre_nms_test: int = 1000,
        pre_nms_train: int = 2000,
        proposals_test: int = 1000,
        proposals_train: int = 1000,
        nms_threshold: float = 0.7,
        batch_size: int = 256,
        anchors_inside: bool = False,
        smooth_l1_beta: float = 0.0,
        inclusive: bool = False,
        sample: Sampler = random_sample,
    ) -> None:
        super().__init__()
        self.anchor_scale = anchor_scale
        self.pre_nms_test, self.pre_nms_train = pre_nms_test, pre_nms_train
        self.proposals_test, self.proposals_train = proposals_test, proposals_train
        self.nms_threshold, self.batch_size, self.sample = nms_threshold, batch_size, sample
        self.anchors_inside, self.smooth_l1_beta = anchors_inside, smooth_l1_beta
        self.inclusive = inclusive
        self.conv: nn.Module = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu: nn.Module = nn.ReLU(inplace=True)
        self.objectness = nn.Conv2d(channels, len(RATIOS), 1)
        self.deltas = nn.Conv2d(channels, len(RATIOS) * 4, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.01)
            else:
                nn.init.zeros_(parameter)

    def losses(
        self, features: list[Tensor], batch: Batch, targets: list[Targets]
    ) -> tuple[list[Float[Tensor, "_R 4"]], dict[str, Tensor]]:
        """Training proposals of each image (without gradient), `loss_rpn_cls` and `loss_rpn_box`."""
        levels = self.run(features)
        anchors = self._anchors(features)
        proposals = self._propose(levels, anchors, batch, self.pre_nms_train, self.proposals_train)
        return proposals, self._losses(levels, anchors, features, batch, targets)

    def predict(self, features: list[Tensor], batch: Batch) -> list[Float[Tensor, "_R 4"]]:
        """Proposals of each image, best first, in pixels of the resized image."""
        levels = self.run(features)
        return self._propose(levels, self._anchors(features), batch, self.pre_nms_test, self.proposals_test)

    def run(self, features: list[Tensor]) -> list[Predictions]:
        """The network itself: logits and deltas of each level, anchors in the order row, column, ratio."""
        levels = []
        for feature in features:
            hidden = self.relu(self.conv(feature))
            logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
            deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(len(logits), -1, 4)
            levels.append((logits.float(), deltas.float()))
        return levels

    def _anchors(self, features: list[Tensor]) -> list[Float[Tensor, "_A 4"]]:
        return [
            level_anchors(
                (f.shape[-2], f.shape[-1]), stride, self.anchor_scale, f.device, inclusive=self.inclusive
            )
            for f, stride in zip(features, STRIDES, strict=True)
        ]

    @torch.no_grad()
    def _propose(
        self, levels: list[Predictions], anchors: list[Tensor], batch: Batch, pre_nms: int, count: int
    ) -> list[Float[Tensor, "_R 4"]]:
        proposals = []
        for image, size in enumerate(batch.image_sizes):
            boxes, scores, groups = [], [], []
            for level, ((logits, deltas), anchor) in enumerate(zip(levels, anchors, strict=True)):
                best = logits[image].sigmoid().topk(min(pre_nms, len(anchor)))
                scores.append(best.values)
                boxes.append(decode_boxes(anchor[best.indices], deltas[image, best.indices], BOX_STDS, size))
                groups.append(torch.full_like(best.indices, level))
            box, score, group = torch.cat(boxes), torch.cat(scores), torch.cat(groups)
            real = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
            box, score, group = box[real], score[real], group[real]
            keep = grouped_nms(box, score, group, self.nms_threshold)[:count]
            proposals.append(box[keep])
        return proposals

    def _losses(
        self,
        levels: list[Predictions],
        anchors: list[Tensor],
        features: list[Tensor],
        batch: Batch,
        targets: list[Targets],
    ) -> dict[str, Tensor]:
        logits = torch.cat([logit for logit, _ in levels], dim=1)
        deltas = torch.cat([delta for _, delta in levels], dim=1)
        all_anchors = torch.cat(anchors)
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        cls_loss, box_loss, sampled = logits.sum() * 0, deltas.sum() * 0, 0
        for image, target in enumerate(targets):
            valid = inside_padded(sizes, STRIDES, batch.image_sizes[image], logits.device)
            if self.anchors_inside:
                valid = valid & inside_image(all_anchors, batch.image_sizes[image])
            candidates = valid.nonzero().flatten()
            matches = match_boxes(
                all_anchors[candidates],
                target.boxes,
                positive_iou=POSITIVE_IOU,
                negative_iou=NEGATIVE_IOU,
                low_quality_iou=NEGATIVE_IOU,
            )
            positive, negative = sample_matches(
                matches,
                batch_size=self.batch_size,
                positive_fraction=POSITIVE_FRACTION,
                sample=self.sample,
            )
            objects = target.boxes[matches[positive]]
            positive, negative = candidates[positive], candidates[negative]
            wanted = encode_boxes(all_anchors[positive], objects, BOX_STDS)
            chosen = torch.cat([positive, negative])
            is_object = torch.zeros(len(chosen), device=logits.device)
            is_object[: len(positive)] = 1
            cls_loss = cls_loss + F.binary_cross_entropy_with_logits(
                logits[image, chosen], is_object, reduction="sum"
            )
            box_loss = box_loss + F.smooth_l1_loss(
                deltas[image, positive], wanted, reduction="sum", beta=self.smooth_l1_beta
            )
            sampled += len(chosen)
        return {"loss_rpn_cls": cls_loss / max(sampled, 1), "loss_rpn_box": box_loss / max(sampled, 1)}
