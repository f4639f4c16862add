"""The squeeze-excitation block (arXiv 1709.01507), as an instance of the paper's framework."""

from __future__ import annotations

from gcnet.context.block import ContextBlock, bottleneck_width
from gcnet.context.modelling import AveragePool
from gcnet.context.transform import BottleneckTransform


class SqueezeExcitation(ContextBlock):
    """Scales each channel by a sigmoid gate that is computed from the mean of the map.

    The last layer starts at zero, so a fresh block halves the map: a gate in (0, 1) cannot start as the
    identity. In a trained network it has to be trained from there.

    Args:
        channels: C of the map.
        ratio: bottleneck width as a share of `channels`, in (0, 1].

    Raises:
        ValueError: `ratio` leaves no bottleneck channel.
    """

    def __init__(self, channels: int, *, ratio: float = 1 / 16) -> None:
        bottleneck = bottleneck_width(channels, ratio)
        super().__init__(AveragePool(), scale=BottleneckTransform(channels, bottleneck, layer_norm=False))
