"""Small networks whose context blocks do something, as those of fresh ones do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gcnet.context import ContextBlock
from gcnet.models.detector import Detector
from gcnet.models.resnet import ResidualBlock, ResNet
from gcnet.models.spec import ContextSpec, ResNetSpec
from gcnet.weights.catalog import find


def lively_detector(context: ContextSpec | None, **changes: Any) -> Detector:
    """It finds nothing, but its blocks look somewhere. `changes` are those of the tiny model's spec."""
    torch.manual_seed(0)
    spec = find("mask_rcnn_tiny").spec
    spec = replace(
        spec, class_names=("a", "b"), image_size=(128, 96), backbone=replace(spec.backbone, context=context)
    )
    spec = replace(spec, **changes)
    model = Detector(spec)
    for module in model.modules():
        if isinstance(module, ContextBlock):
            for parameter in module.parameters():
                parameter.data.normal_(std=0.2)
    return model


def lively_resnet(
    make_context: Callable[[int], nn.Module] | None, *, position: str = "after1x1", **changes: Any
) -> ResNet:
    """A small network whose norms, blocks and offsets are none of those that change nothing.

    `make_context` makes the blocks of c3 to c5; `changes` are those of the default spec.
    """
    torch.manual_seed(0)
    context = ContextSpec(position=position) if make_context else None
    resnet = ResNet(
        ResNetSpec(blocks=(1, 2, 1, 1), stem_channels=16, base_channels=16, context=context, **changes)
    )
    for block in resnet.modules():
        if isinstance(block, ResidualBlock) and block.context is not None and make_context:
            block.context = make_context(block.conv3.out_channels)
    for name, parameter in resnet.named_parameters():
        if parameter.dim() == 1 or ".expand" in name or ".offset" in name or ".linear" in name:
            nn.init.normal_(parameter, mean=0.5 if "bn" in name else 0.0, std=0.2)
    for name, buffer in resnet.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.2, 1.5)
    return resnet
