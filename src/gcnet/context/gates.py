"""Blocks of other papers that scale the map by gates: ECA, CBAM and GCT, each as its paper defines it.

N images, C channels, `...` positions, H x W map.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context.blocks import AveragePool, BottleneckTransform, ContextBlock, bottleneck_width
from gcnet.errors import GCNetError


class EfficientChannelAttention(ContextBlock):
    """ECA: a gate for each channel, from the means of a few neighbouring channels (arXiv 1910.03151).

    The convolution starts at zero, so a fresh block halves the map.

    Args:
        channels: C of the map.
        kernel: how many channels the convolution sees, an odd number; None follows equation 12 of the paper:
            the odd number next to (log2(C) + 1) / 2.
    """

    def __init__(self, channels: int, *, kernel: int | None = None) -> None:
        if kernel is None:
            kernel = int((math.log2(channels) + 1) / 2) // 2 * 2 + 1
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; it must be odd, to have as many channels on either side")
        super().__init__(AveragePool(), scale=ChannelConvolution(channels, kernel))


class ChannelConvolution(nn.Module):
    """C -> C by one convolution that slides over the channels, with zeros beyond the first and last."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, context: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return self.conv(context.unsqueeze(1)).squeeze(1)


class ConvolutionalBlockAttention(ContextBlock):
    """CBAM: a gate for each channel, and then one for each position (arXiv 1807.06521, section 3).

    Both start at one half, so a fresh block divides the map by four.

    Args:
        channels: C of the map.
        ratio: bottleneck width of the channels' gate as a share of `channels`, in (0, 1].
        kernel: side of the convolution that computes the positions' gate.

    Raises:
        ValueError: `ratio` leaves no bottleneck channel.
    """

    def __init__(self, channels: int, *, ratio: float = 1 / 16, kernel: int = 7) -> None:
        bottleneck = bottleneck_width(channels, ratio)
        super().__init__(AverageAndMaxPool(), scale=SharedBottleneck(channels, bottleneck, layer_norm=False))
        self.spatial = nn.Conv2d(2, 1, kernel, padding="same", bias=False)
        nn.init.zeros_(self.spatial.weight)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        if x.dim() != 4:
            raise GCNetError(f"CBAM takes maps of shape (N, C, H, W), not {tuple(x.shape)}")
        x = super().forward(x)
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.spatial(summary).sigmoid()


class AverageAndMaxPool(nn.Module):
    """The mean and the largest value of each channel."""

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N 2 C"]:
        flat = x.flatten(2)
        return torch.stack([flat.mean(dim=2), flat.amax(dim=2)], dim=1)


class SharedBottleneck(BottleneckTransform):
    """The sum of one bottleneck's results for two vectors."""

    def forward(self, context: Float[Tensor, "N 2 C"]) -> Float[Tensor, "N C"]:
        return super().forward(context).sum(dim=1)


class GatedChannelTransformation(ContextBlock):
    """GCT: channels compete or support each other by their norms (arXiv 1909.11519, section 3).

    The gate is 1 + tanh, which starts at 1: a fresh block changes nothing.

    Args:
        channels: C of the map.
        epsilon: keeps the norms of an empty map away from zero.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5) -> None:
        super().__init__(ChannelNorms(channels, epsilon), scale=ChannelAffine(channels))

    @staticmethod
    def gate(term: Tensor) -> Tensor:
        return 1 + term.tanh()


class ChannelNorms(nn.Module):
    """The L2 norm of each channel times a learnt weight, divided by the root mean square of all of them."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C"]:
        # Sums of squares over a large map overflow float16.
        exact = torch.promote_types(x.dtype, torch.float32)
        squares = torch.linalg.vector_norm(x.flatten(2), dim=2, dtype=exact).square()
        norms = self.weight * (squares + self.epsilon).sqrt()
        total = (norms.square().sum(dim=1, keepdim=True) + self.epsilon).sqrt()
        return (norms * norms.shape[1] ** 0.5 / total).to(x.dtype)


class ChannelAffine(nn.Module):
    """A scale and a shift for each channel, both zero at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = channels
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, context: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return context * self.weight + self.bias
