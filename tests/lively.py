"""A tiny detector whose context blocks do something, as those of a fresh one do not."""

from __future__ import annotations

from dataclasses import replace

import torch

from gcnet.context import ContextBlock
from gcnet.models.build import build_detector
from gcnet.models.detector import Detector
from gcnet.models.spec import ContextSpec
from gcnet.zoo.catalog import find


def lively_detector(context: ContextSpec | None) -> Detector:
    """It finds nothing, but its blocks look somewhere."""
    torch.manual_seed(0)
    spec = find("mask_rcnn_tiny").spec
    spec = replace(
        spec, class_names=("a", "b"), image_size=(128, 96), backbone=replace(spec.backbone, context=context)
    )
    model = build_detector(spec)
    for module in model.modules():
        if isinstance(module, ContextBlock):
            for parameter in module.parameters():
                parameter.data.normal_(std=0.2)
    return model
