"""Feature pyramid (arXiv 1612.03144).

N images, C channels, h x w map of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.models.layers import make_norms
from gcnet.models.spec import Norm


class FPN(nn.Module):
    """P2..P5 from c2..c5, top-down with nearest upsampling, and P6 as every second pixel of P5.

    With a `norm`, each convolution is followed by one and has no bias.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, norm: Norm | None = None) -> None:
        super().__init__()
        levels, bias = len(in_channels), norm is None
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1, bias=bias) for count in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias) for _ in range(levels)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        self.lateral_norms = make_norms(norm, channels, levels)
        self.output_norms = make_norms(norm, channels, levels)

    def forward(self, features: list[Float[Tensor, "N _C _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        maps = [
            norm(lateral(feature))
            for lateral, norm, feature in zip(self.lateral, self.lateral_norms, features, strict=True)
        ]
        for level in reversed(range(len(maps) - 1)):
            maps[level] = _add_upsampled(maps[level], maps[level + 1])
        outputs = [
            norm(output(level))
            for output, norm, level in zip(self.output, self.output_norms, maps, strict=True)
        ]
        return [*outputs, outputs[-1][:, :, ::2, ::2]]


def _add_upsampled(
    fine: Float[Tensor, "N C h w"], coarse: Float[Tensor, "N C h2 w2"]
) -> Float[Tensor, "N C h w"]:
    """`fine` plus `coarse` repeated to its size. Without gradients `fine` itself is overwritten."""
    twice = fine.shape[-2:] == (2 * coarse.shape[-2], 2 * coarse.shape[-1])
    if not twice or not fine.is_contiguous(memory_format=torch.channels_last):
        return fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
    # Broadcast: the repeated map is never made.
    cells, repeated = fine.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)), coarse[:, :, :, None, :, None]
    summed = cells + repeated if torch.is_grad_enabled() else cells.add_(repeated)
    return summed.flatten(4, 5).flatten(2, 3)
