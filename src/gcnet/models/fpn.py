"""Feature pyramid network (arXiv 1612.03144), and its extensions PAFPN and the balanced pyramid.

N images, C channels, h x w map of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.context import NonLocal
from gcnet.models.layers import initialise, make_norms
from gcnet.models.spec import BalanceSpec, ModelSpec, Norm


def make_neck(in_channels: Sequence[int], spec: ModelSpec) -> nn.Module:
    """From a backbone's maps to five levels, finest first."""
    fpn = FPN(in_channels, spec.fpn_channels, norm=spec.fpn_norm, bottom_up=spec.fpn_bottom_up)
    if spec.balance is None:
        return fpn
    return nn.Sequential(fpn, BalancedPyramid(spec.fpn_channels, spec.balance))


class FPN(nn.Module):
    """P2..P5 from c2..c5, top-down with nearest upsampling, and P6 as every second pixel of P5.

    With a `norm`, each convolution is followed by one and has no bias. With `bottom_up` each level is also
    added to the next coarser one (PAFPN, arXiv 1803.01534, section 3.1).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        norm: Norm | None = None,
        bottom_up: bool = False,
    ) -> None:
        super().__init__()
        levels, steps = len(in_channels), len(in_channels) - 1 if bottom_up else 0
        conv = partial(nn.Conv2d, bias=norm is None)
        three = partial(conv, channels, channels, 3, padding=1)
        self.lateral = nn.ModuleList(conv(count, channels, 1) for count in in_channels)
        self.output = nn.ModuleList(three() for _ in range(levels))
        self.down = nn.ModuleList(three(stride=2) for _ in range(steps))
        self.final = nn.ModuleList(three() for _ in range(steps))
        initialise(self, nn.init.xavier_uniform_)
        self.lateral_norms = make_norms(norm, channels, levels)
        self.output_norms = make_norms(norm, channels, levels)
        self.down_norms = make_norms(norm, channels, steps)
        self.final_norms = make_norms(norm, channels, steps)

    def forward(self, features: list[Float[Tensor, "N _C _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        maps = _each(self.lateral, self.lateral_norms, features)
        for level in reversed(range(len(maps) - 1)):
            maps[level] = _add_upsampled(maps[level], maps[level + 1])
        outputs = _each(self.output, self.output_norms, maps)
        for level, (down, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            outputs[level + 1] = outputs[level + 1] + norm(down(outputs[level]))
        if self.final:
            outputs[1:] = _each(self.final, self.final_norms, outputs[1:])
        return [*outputs, outputs[-1][:, :, ::2, ::2]]


def _each(convs: nn.ModuleList, norms: nn.ModuleList, maps: Sequence[Tensor]) -> list[Tensor]:
    """Each map through its convolution and norm."""
    return [norm(conv(x)) for conv, norm, x in zip(convs, norms, maps, strict=True)]


class BalancedPyramid(nn.Module):
    """Adds to each level what all levels have in common (arXiv 1904.02701, section 3.2)."""

    def __init__(self, channels: int, spec: BalanceSpec) -> None:
        super().__init__()
        if spec.level > 4:
            raise ValueError(f"there is no level {spec.level} to balance the pyramid at: 0 is P2, 4 is P6")
        self.level = spec.level
        self.refine: nn.Module = nn.Identity()
        if spec.refine == "non_local":
            self.refine = NonLocal(channels, ratio=1, use_scale=False)
        elif spec.refine == "conv":
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            nn.init.xavier_uniform_(conv.weight)
            self.refine = nn.Sequential(conv, nn.ReLU(inplace=True))

    def forward(self, levels: list[Float[Tensor, "N C _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        size = levels[self.level].shape[-2:]
        common = torch.stack([_resized(level, size) for level in levels]).mean(dim=0)
        common = self.refine(common)
        return [level + _resized(common, level.shape[-2:]) for level in levels]


def _resized(x: Float[Tensor, "N C h w"], size: Sequence[int]) -> Float[Tensor, "N C h2 w2"]:
    """A finer map by the maxima of its cells, a coarser one by repeating it."""
    if x.shape[-2] > size[0] or x.shape[-1] > size[1]:
        return F.adaptive_max_pool2d(x, tuple(size))
    return F.interpolate(x, size=tuple(size), mode="nearest")


def _add_upsampled(
    fine: Float[Tensor, "N C h w"], coarse: Float[Tensor, "N C h2 w2"]
) -> Float[Tensor, "N C h w"]:
    """`fine` plus `coarse` repeated to its size. Without gradients `fine` itself is overwritten."""
    twice = fine.shape[-2:] == (2 * coarse.shape[-2], 2 * coarse.shape[-1])
    if torch.is_grad_enabled() or not (twice and fine.is_contiguous(memory_format=torch.channels_last)):
        return fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
    # Broadcast: the repeated map is never made. Its gradient would be a sum over two axes, which takes a CPU
    # a hundred times as long as interpolation's own.
    cells, repeated = fine.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)), coarse[:, :, :, None, :, None]
    return cells.add_(repeated).flatten(4, 5).flatten(2, 3)
