"""Parameters and floating-point operations of a model, counted without weights or images.

H x W pixels of the image, R regions, D detections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.heads import BOX_GRID, MASK_GRID
from gcnet.models.roi_heads import STRIDES
from gcnet.models.spec import ClassifierSpec, ModelSpec

DETECTOR_SIZE = (800, 1216)


@dataclass(frozen=True)
class Complexity:
    """Parameters, and the FLOPs of one image by part; a multiply-add is two operations."""

    parameters: int
    flops: dict[str, int]

    @property
    def total_flops(self) -> int:
        return sum(self.flops.values())


def count_complexity(spec: ModelSpec | ClassifierSpec, size: tuple[int, int] | None = None) -> Complexity:
    """Counts what a model of `spec` computes for one image of `size`, (height, width) in pixels.

    `size` is by default what a 3:2 photograph becomes for the published detectors, (800, 1216), or the
    square that a classifier sees. Matrix products and convolutions are counted, deformable ones without
    their interpolation; norms, activations, sums, RoIAlign and NMS are not. A detector's heads see as many
    regions as they may: all proposals in the box heads, all detections in the mask heads. The network is
    built without memory for its weights.
    """
    with torch.device("meta"):
        if isinstance(spec, ClassifierSpec):
            model = Classifier(spec).eval()
            flops = _count_classifier(model, torch.empty(1, 3, *(size or (spec.image_size[1],) * 2)))
        else:
            model = Detector(spec).eval()
            image = torch.empty(1, 3, *(size or DETECTOR_SIZE))
            flops = _count(model, image, spec.rpn.proposals_test, spec.roi.detections)
    return Complexity(sum(p.numel() for p in model.parameters()), flops)


@torch.no_grad()
def _count_classifier(classifier: Classifier, image: Tensor) -> dict[str, int]:
    features, backbone = _flops(classifier.backbone, image)
    return {"backbone": backbone, "fc": _flops(classifier.fc, features[-1].mean(dim=(2, 3)))[1]}


@torch.no_grad()
def _count(detector: Detector, image: Tensor, regions: int, detections: int) -> dict[str, int]:
    features, backbone = _flops(detector.backbone, image)
    levels, neck = _flops(detector.neck, features)
    channels, heads = levels[0].shape[1], detector.roi_heads
    all_levels = () if heads.spec.aggregate is None else (len(STRIDES),)  # where regions are read from all
    pooled = torch.empty(*all_levels, regions, channels, BOX_GRID, BOX_GRID)
    found = torch.empty(*all_levels, detections, channels, MASK_GRID, MASK_GRID)
    labels = torch.empty(detections, dtype=torch.int64)
    return {
        "backbone": backbone,
        "neck": neck,
        "rpn": _flops(detector.rpn.run, levels)[1],
        "box head": sum(_flops(head, pooled)[1] for head in heads.box_stages),
        "mask head": sum(_flops(head, found, labels)[1] for head in heads.mask_stages),
    }


def _flops(function: Callable[..., Any] | nn.Module, *inputs: Any) -> tuple[Any, int]:
    """What `function` returns, and how many operations it took."""
    counted = {torch.ops.torchvision.deform_conv2d: _deformable_flops}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        result = function(*inputs)
    return result, counter.get_total_flops()


def _deformable_flops(
    image: tuple[int, ...], weight: tuple[int, ...], *_: Any, out_shape: tuple[int, ...], **__: Any
) -> int:
    """As of an ordinary convolution: each output value is a sum over one group's kernel points."""
    return 2 * prod(out_shape) * prod(weight[1:])
