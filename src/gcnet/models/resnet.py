"""ResNet and ResNeXt (arXiv 1512.03385, 1611.05431), with context blocks and deformable convolution.

N images, C channels, H x W map. Names of parameters are torchvision's, so its ImageNet files fit.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context import make_block
from gcnet.models import light
from gcnet.models.layers import DeformableConv2d, make_norm
from gcnet.models.spec import ResNetSpec

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with its norm, and a shortcut.

    `context` sits on the last 1x1 convolution and its norm ("after1x1") or on the sum with the shortcut,
    before its ReLU ("after_add"): the two places of arXiv 1904.11492, section 5.1.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, spec: ResNetSpec, *, stage: int) -> None:
        super().__init__()
        norm, groups, context = spec.norm, spec.groups, spec.context
        out_channels = channels * EXPANSION
        width = channels if groups == 1 else channels * spec.group_width // 64 * groups
        convolution = DeformableConv2d if spec.deformable_stages[stage] else nn.Conv2d
        first, second = (stride, 1) if spec.style == "caffe" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride=first, bias=False)
        self.bn1 = make_norm(norm, width)
        self.conv2 = convolution(width, width, 3, stride=second, padding=1, groups=groups, bias=False)
        self.bn2 = make_norm(norm, width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = make_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                make_norm(norm, out_channels),
            )
        self.context = None
        if context is not None and context.stages[stage]:
            self.context = make_block(context.block, out_channels, **context.options)
        self.context_after_add = context is not None and context.position == "after_add"

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        if light.can_run(self, x):  # the same from fewer maps, for training
            return light.run(self, x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.context is not None and not self.context_after_add:
            out = self.context(out)
        out = out + (x if self.downsample is None else self.downsample(x))
        if self.context is not None and self.context_after_add:
            out = self.context(out)
        return self.relu(out)


class ResNet(nn.Module):
    """Stages c2 to c5 at strides 4, 8, 16 and 32.

    Its first `spec.frozen_stages` (of stem, c2, c3, ...) are never trained and keep their norm statistics.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.norm, self.frozen_stages = spec.norm, spec.frozen_stages
        self.conv1 = nn.Conv2d(3, spec.stem_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(spec.norm, spec.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = spec.stem_channels
        self.out_channels: list[int] = []
        for stage, count in enumerate(spec.blocks):
            channels, layers = spec.base_channels * 2**stage, []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(Bottleneck(in_channels, channels, stride, spec, stage=stage))
                in_channels = channels * EXPANSION
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
        """As usual, except that frozen parts and frozen statistics stay in eval mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        if self.norm == "frozen_stats":
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                    module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        stem: list[nn.Module] = [self.conv1, self.bn1] if self.frozen_stages > 0 else []
        return stem + [getattr(self, f"layer{stage}") for stage in range(1, self.frozen_stages)]

    def _initialise(self, zero_init_residual: bool) -> None:
        """Kaiming fan-out convolutions; deformable ones start as ordinary ones."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck) and zero_init_residual:
                nn.init.zeros_(module.bn3.weight)
        for module in self.modules():
            if isinstance(module, DeformableConv2d):
                module.reset_offsets()
