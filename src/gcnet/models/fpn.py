"""Feature pyramid (arXiv 1612.03144).

N images, C channels, h x w map of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """P2..P5 from c2..c5, top-down with nearest upsampling, and P6 as every second pixel of P5."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, features: list[Float[Tensor, "N _C _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for level in reversed(range(len(maps) - 1)):
            maps[level] = maps[level] + F.interpolate(
                maps[level + 1], size=maps[level].shape[-2:], mode="nearest"
            )
        outputs = [output(level) for output, level in zip(self.output, maps, strict=True)]
        return [*outputs, outputs[-1][:, :, ::2, ::2]]
