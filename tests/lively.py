"""Small networks whose context blocks do something, as those of fresh ones do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gcnet.context import ContextBlock
from gcnet.models.build import build_detector
from gcnet.models.detector import Detector
from gcnet.models.resnet import MakeContext, ResNet
from gcnet.models.spec import ContextSpec
from gcnet.weights.catalog import find


def lively_detector(context: ContextSpec | None, **changes: Any) -> Detector:
    """It finds nothing, but its blocks look somewhere. `changes` are those of the tiny model's spec."""
    torch.manual_seed(0)
    spec = find("mask_rcnn_tiny").spec
    spec = replace(
        spec, class_names=("a", "b"), image_size=(128, 96), backbone=replace(spec.backbone, context=context)
    )
    spec = replace(spec, **changes)
    model = build_detector(spec)
    for module in model.modules():
        if isinstance(module, ContextBlock):
            for parameter in module.parameters():
                parameter.data.normal_(std=0.2)
    return model


def lively_resnet(make_context: MakeContext | None, **kwargs) -> ResNet:
    """A small network whose norms, blocks and offsets are none of those that change nothing."""
    torch.manual_seed(0)
    resnet = ResNet(
        blocks=(1, 2, 1, 1), stem_channels=16, base_channels=16, make_context=make_context, **kwargs
    )
    for name, parameter in resnet.named_parameters():
        if parameter.dim() == 1 or ".expand" in name or ".offset" in name or ".linear" in name:
            nn.init.normal_(parameter, mean=0.5 if "bn" in name else 0.0, std=0.2)
    for name, buffer in resnet.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.2, 1.5)
    return resnet
