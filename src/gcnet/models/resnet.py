"""ResNet and its kin, with context blocks and deformable convolution.

ResNet, ResNeXt, Res2Net and RegNetX are arXiv 1512.03385, 1611.05431, 1904.01169 and 2003.13678.

N images, C channels, H x W map. Names of parameters are torchvision's, and of a deep stem timm's, so that
their ImageNet files fit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context import make_block
from gcnet.models import light
from gcnet.models.layers import DeformableConv2d, kaiming, make_norm
from gcnet.models.spec import ResNetSpec

EXPANSION = {"bottleneck": 4, "basic": 1}


class ResidualBlock(nn.Module):
    """Convolutions, each with its norm, and a shortcut: 1x1, 3x3, 1x1 in a bottleneck, or 3x3 and 3x3.

    The norms of a `SplitConv2d` are its own.

    Context blocks sit on the last convolution and its norm ("after1x1") or on the sum with the shortcut,
    before its ReLU ("after_add"): the two places of arXiv 1904.11492, section 5.1; or within.
    `context` is the first of them, `contexts` are the names and positions of all.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        spec: ResNetSpec,
        *,
        stage: int,
        index: int = 0,
    ) -> None:
        super().__init__()
        convs = _convolutions(in_channels, out_channels, stride, spec, stage=stage, is_first=index == 0)
        self.depth = len(convs)
        for number, conv in enumerate(convs, 1):
            self.add_module(f"conv{number}", conv)
            is_split = isinstance(conv, SplitConv2d)
            norm = nn.Identity() if is_split else make_norm(spec.norm, conv.out_channels)
            self.add_module(f"bn{number}", norm)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = _shortcut(in_channels, out_channels, stride, spec)
        self.context: nn.Module | None = None
        contexts: list[tuple[str, str]] = []
        for context in (context for context in spec.contexts if context.is_in(stage, index)):
            inner = context.position in ("after_conv1", "after_conv2")
            name = f"context{len(contexts) + 1 if contexts else ''}"
            width = convs[0].out_channels if inner else out_channels
            setattr(self, name, make_block(context.block, width, **context.options))
            contexts.append((name, context.position))
        self.contexts = tuple(contexts)

    @property
    def layers(self) -> list[tuple[nn.Conv2d | SplitConv2d, nn.Module]]:
        """Each convolution with its norm."""
        return [(getattr(self, f"conv{n}"), getattr(self, f"bn{n}")) for n in range(1, self.depth + 1)]

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        if light.can_run(self, x):  # the same from fewer maps, for training
            return light.run(self, x)
        out = x
        for number, (conv, norm) in enumerate(self.layers, 1):
            out = norm(conv(out))
            if number < self.depth:
                out = add_context(self, self.relu(out), f"after_conv{number}")
        out = add_context(self, out, "after1x1")
        out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu(add_context(self, out, "after_add"))


def add_context(block: Any, x: Float[Tensor, "N C H W"], position: str) -> Float[Tensor, "N C H W"]:
    """The map after the context blocks at a position."""
    for name, own in block.contexts:
        if own == position:
            x = getattr(block, name)(x)
    return x


class SplitConv2d(nn.Module):
    """Res2Net's 3x3 convolutions on parts of the channels: each also takes what the one before it gave.

    There is one for each part but the last, which is passed on. In the first block of a stage each takes
    its own part alone, and with a stride the last part is averaged. Each has its norm and a ReLU.
    """

    def __init__(
        self,
        width: int,
        stride: int,
        spec: ResNetSpec,
        make_conv: Callable[..., nn.Conv2d],
        *,
        is_first: bool,
    ) -> None:
        super().__init__()
        self.out_channels, self.is_first = width * spec.scales, is_first
        self.convs = nn.ModuleList(
            nn.Sequential(
                make_conv(width, width, 3, stride=stride, padding=1, bias=False),
                make_norm(spec.norm, width),
                nn.ReLU(inplace=True),
            )
            for _ in range(spec.scales - 1)
        )
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        *parts, last = x.chunk(len(self.convs) + 1, dim=1)
        outputs: list[Tensor] = []
        for conv, part in zip(self.convs, parts, strict=True):
            outputs.append(conv(part if self.is_first or not outputs else part + outputs[-1]))
        return torch.cat([*outputs, self.pool(last)], dim=1)


def _convolutions(
    in_channels: int, out_channels: int, stride: int, spec: ResNetSpec, *, stage: int, is_first: bool
) -> list[nn.Conv2d | SplitConv2d]:
    options = {"kernel_size": 3, "padding": 1, "bias": False}
    deformable = spec.deformable_stages[stage]
    if spec.block == "basic":
        if deformable or spec.groups != 1 or spec.scales != 1 or spec.widths:
            raise ValueError("basic blocks have neither deformable convolutions nor groups, scales or widths")
        first = nn.Conv2d(in_channels, out_channels, stride=stride, **options)
        return [first, nn.Conv2d(out_channels, out_channels, **options)]
    if spec.scales > 1 and (spec.groups > 1 or spec.widths):
        raise ValueError("the parts of a Res2Net have neither groups nor widths of their own")
    kind: Any = nn.Conv2d
    if deformable:
        kind = partial(DeformableConv2d, modulated=spec.modulated, offset_groups=spec.offset_groups)
    width, groups = out_channels // EXPANSION["bottleneck"], spec.groups
    if spec.widths:
        width, groups = out_channels, out_channels // min(spec.group_width, out_channels)
    elif groups > 1 or spec.scales > 1:
        width = width * spec.group_width // 64 * groups * spec.scales
    strides = (stride, 1) if spec.style == "caffe" else (1, stride)
    middle: nn.Conv2d | SplitConv2d
    if spec.scales > 1:
        middle = SplitConv2d(width // spec.scales, strides[1], spec, kind, is_first=is_first)
    else:
        middle = kind(width, width, stride=strides[1], groups=groups, **options)
    return [
        nn.Conv2d(in_channels, width, 1, stride=strides[0], bias=False),
        middle,
        nn.Conv2d(width, out_channels, 1, bias=False),
    ]


def _shortcut(in_channels: int, out_channels: int, stride: int, spec: ResNetSpec) -> nn.Sequential:
    own = 1 if spec.avg_down else stride
    layers = [
        nn.Conv2d(in_channels, out_channels, 1, stride=own, bias=False),
        make_norm(spec.norm, out_channels),
    ]
    if spec.avg_down:
        layers.insert(0, nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
    return nn.Sequential(*layers)


class ResNet(nn.Module):
    """Stages c2 to c5 at strides 4, 8, 16 and 32.

    Its first `spec.frozen_stages` (of stem, c2, c3, ...) are never trained and keep their norm statistics.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.norm, self.frozen_stages = spec.norm, spec.frozen_stages
        self.conv1 = _stem(spec)
        self.bn1 = make_norm(spec.norm, spec.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if spec.widths else nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = spec.stem_channels
        self.out_channels: list[int] = []
        narrowest = spec.base_channels * EXPANSION[spec.block]
        for stage, count in enumerate(spec.blocks):
            width, layers = spec.widths[stage] if spec.widths else narrowest * 2**stage, []
            for index in range(count):
                stride = 2 if index == 0 and (stage > 0 or spec.widths) else 1
                layers.append(ResidualBlock(in_channels, width, stride, spec, stage=stage, index=index))
                in_channels = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
            self.out_channels.append(in_channels)
        self._initialise(spec.zero_init_residual)
        for module in self._frozen():
            module.requires_grad_(False)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N C h w"]]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in range(len(self.out_channels)):
            x = getattr(self, f"layer{stage + 1}")(x)
            features.append(x)
        return features

    def train(self, mode: bool = True) -> ResNet:
        """As usual, but frozen parts and frozen statistics stay in eval mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        if self.norm == "frozen_stats":
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                    module.eval()
        return self

    def stages(self) -> list[list[nn.Module]]:
        """The parts of the stem, c2, c3, ..."""
        layers = [getattr(self, f"layer{stage + 1}") for stage in range(len(self.out_channels))]
        return [[self.conv1, self.bn1], *([layer] for layer in layers)]

    def _frozen(self) -> list[nn.Module]:
        return [module for stage in self.stages()[: self.frozen_stages] for module in stage]

    def _initialise(self, zero_init_residual: bool) -> None:
        """Kaiming fan-out convolutions; deformable ones start as ordinary ones."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming(module.weight)
            elif isinstance(module, ResidualBlock) and zero_init_residual:
                nn.init.zeros_(module.layers[-1][1].weight)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, DeformableConv2d):
                module.reset_offsets()


def _stem(spec: ResNetSpec) -> nn.Conv2d | nn.Sequential:
    """The first convolution, or with a deep stem all up to the last one, which `bn1` follows."""
    channels, half = spec.stem_channels, spec.stem_channels // 2
    if not spec.deep_stem:
        side = 3 if spec.widths else 7
        return nn.Conv2d(3, channels, side, stride=2, padding=side // 2, bias=False)
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
        make_norm(spec.norm, half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        make_norm(spec.norm, half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, channels, 3, padding=1, bias=False),
    )
