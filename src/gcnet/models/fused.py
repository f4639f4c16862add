"""A ResNet for inference: norms folded into convolutions, ReLUs and sums done by them, context for free.

N images, C channels, c = C / 4 channels inside a block, H x W map.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.context import AttentionPool, ContextBlock
from gcnet.models.folding import folded
from gcnet.models.layers import DeformableConv2d
from gcnet.models.light import adds_one_vector
from gcnet.models.resnet import Bottleneck, ResNet

# oneDNN's convolution with what follows it in the same pass over the output; torch.compile calls the same.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class FusedConv(nn.Module):
    """conv, norm, + `add`, ReLU as one convolution. It reads and writes channels-last maps."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module | None = None, *, relu: bool = False) -> None:
        super().__init__()
        weight, bias = folded(conv, norm)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.geometry = (list(cast(tuple[int, ...], conv.padding)), list(conv.stride), list(conv.dilation))
        self.groups, self.relu = conv.groups, relu
        self._packed: Tensor | None = None

    def forward(
        self,
        x: Float[Tensor, "N C H W"],
        *,
        add: Float[Tensor, "N D h w"] | None = None,
        bias: Float[Tensor, " D"] | None = None,
    ) -> Float[Tensor, "N D h w"]:
        """`bias` replaces the layer's own."""
        bias = self.bias if bias is None else bias
        if _ONEDNN and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16):
            return self._onednn(x, add, bias)
        padding, stride, dilation = self.geometry
        out = F.conv2d(x, self.weight, bias, stride, padding, dilation, self.groups)
        if add is not None:
            out = out.add_(add)
        return out.relu_() if self.relu else out

    def _onednn(self, x: Tensor, add: Tensor | None, bias: Tensor) -> Tensor:
        if self._packed is None:
            # Into the blocked order that the kernel wants: once, not at every call.
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, *self.geometry, self.groups, list(x.shape)
            )
        convolve = torch.ops.mkldnn._convolution_pointwise
        if add is None:
            after = "relu" if self.relu else "none"
            return convolve(x, self._packed, bias, *self.geometry, self.groups, after, [], "")
        after = "relu" if self.relu else None
        return convolve.binary(
            x, add, self._packed, bias, *self.geometry, self.groups, "add", 1.0, after, [], None
        )

    def _apply(self, fn, recurse=True):  # moved or cast: what was packed is stale
        self._packed = None
        return super()._apply(fn, recurse)


class FusedDeformableConv(nn.Module):
    """A deformable convolution with its norm folded in, and ReLU."""

    def __init__(self, conv: DeformableConv2d, norm: nn.Module) -> None:
        super().__init__()
        weight, bias = folded(conv, norm)
        self.conv = DeformableConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=False,
        ).requires_grad_(False)
        self.conv.weight.data, self.conv.bias = weight, nn.Parameter(bias, requires_grad=False)
        self.conv.offset.load_state_dict(conv.offset.state_dict())

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        return self.conv(x).relu_().contiguous(memory_format=torch.channels_last)


class FusedContext(nn.Module):
    """What a context block adds to the output of a 1x1 convolution, found from the convolution's input.

    Pooling and the convolution z = W y + b commute: sum_p a_p z_p = W sum_p a_p y_p + b, and the attention
    logits w' z_p are (W' w)' y_p up to a constant that the softmax does not see. So the map of C channels is
    never read: the block costs two passes over the c channels of y, and its result goes into the bias.
    """

    @torch.no_grad()
    def __init__(self, block: ContextBlock, conv: FusedConv) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.flatten(1).contiguous(), requires_grad=False)
        self.bias = conv.bias
        self.pool = block.pool
        if isinstance(block.pool, AttentionPool):
            self.pool = AttentionPool(self.weight.shape[1]).requires_grad_(False)
            self.pool.weight.copy_(block.pool.weight @ self.weight)
        self.add = cast(nn.Module, block.add)

    def forward(self, y: Float[Tensor, "N c H W"]) -> Float[Tensor, "N C"]:
        return self.add(F.linear(self.pool(y), self.weight, self.bias))


class FusedBottleneck(nn.Module):
    """A `Bottleneck` in eval mode: one pass over the map for each convolution, and no more."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = FusedConv(block.conv1, block.bn1, relu=True)
        self.conv2 = (
            FusedDeformableConv(block.conv2, block.bn2)
            if isinstance(block.conv2, DeformableConv2d)
            else FusedConv(block.conv2, block.bn2, relu=True)
        )
        self.downsample = None
        if isinstance(block.downsample, nn.Sequential):
            self.downsample = FusedConv(cast(nn.Conv2d, block.downsample[0]), block.downsample[1])
        self.shift, self.context, self.context_after_add = None, None, block.context_after_add
        if block.context is not None:
            if not block.context_after_add and adds_one_vector(block.context):
                plain = FusedConv(block.conv3, block.bn3)
                self.shift = FusedContext(cast(ContextBlock, block.context), plain)
            else:
                self.context = block.context
        self.conv3 = FusedConv(block.conv3, block.bn3, relu=self.context is None)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        y = self.conv2(self.conv1(x))
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.context is not None:
            if self.context_after_add:
                return self.context(self.conv3(y, add=shortcut)).relu_()
            return (self.context(self.conv3(y)) + shortcut).relu_()
        if self.shift is None:
            return self.conv3(y, add=shortcut)
        shift = self.shift(y)
        if len(shift) == 1:
            return self.conv3(y, add=shortcut, bias=self.conv3.bias + shift[0])
        return self.conv3(y, add=shortcut + shift[:, :, None, None])


class FusedResNet(nn.Module):
    """What a `ResNet` computes in eval mode, channels-last. For inference only.

    Raises:
        ValueError: the network normalises by groups, which cannot be folded into convolutions.
    """

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        if resnet.norm == "group":
            raise ValueError("group norm depends on the picture and cannot be folded into convolutions")
        self.stem = FusedConv(resnet.conv1, resnet.bn1, relu=True)
        self.maxpool, self.out_channels = resnet.maxpool, resnet.out_channels
        self.stages = nn.ModuleList(
            nn.Sequential(*[FusedBottleneck(block) for block in getattr(resnet, f"layer{stage}")])
            for stage in range(1, len(resnet.out_channels) + 1)
        )

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _C _h _w"]]:
        x = self.maxpool(self.stem(x.contiguous(memory_format=torch.channels_last)))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
