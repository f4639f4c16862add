"""What stands behind a feature pyramid: as upstream computes it, stated again in its order of steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.context import NonLocal
from gcnet.models.fpn import FPN, BalancedPyramid
from gcnet.models.spec import BalanceSpec

CHANNELS = (8, 16, 32, 64)


def maps(height: int = 96, width: int = 160) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = zip(CHANNELS, (4, 8, 16, 32), strict=True)
    return [torch.randn(2, c, height // s, width // s, generator=generator) for c, s in sizes]


@pytest.mark.parametrize("norm", [None, "batch"])
def test_from_fine_to_coarse_again(norm: str | None) -> None:
    """arXiv 1803.01534, section 3.1, as mmdetection's PAFPN has it: no activations."""
    torch.manual_seed(0)
    neck = FPN(CHANNELS, 8, norm=norm, bottom_up=True).eval()
    for module in neck.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias)
    up = [neck.lateral_norms[i](neck.lateral[i](x)) for i, x in enumerate(maps())]
    for i in (3, 2, 1):
        up[i - 1] = up[i - 1] + F.interpolate(up[i], size=up[i - 1].shape[2:], mode="nearest")
    inner = [neck.output_norms[i](neck.output[i](up[i])) for i in range(4)]
    for i in range(3):
        inner[i + 1] = inner[i + 1] + neck.down_norms[i](neck.down[i](inner[i]))
    expected = [inner[0], *(neck.final_norms[i](neck.final[i](inner[i + 1])) for i in range(3))]
    expected.append(F.max_pool2d(expected[-1], 1, stride=2))
    found = neck(maps())
    assert len(found) == 5
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert neck.down[0].stride == (2, 2)


@pytest.mark.parametrize("refine", ["non_local", "conv", None])
@pytest.mark.parametrize("level", [0, 2, 4])
def test_balanced_pyramid(level: int, refine: str | None) -> None:
    """arXiv 1904.02701, section 3.2, as mmdetection's BFP has it."""
    torch.manual_seed(0)
    balance = BalancedPyramid(8, BalanceSpec(level, refine))
    nonlocal_block = balance.refine
    if isinstance(nonlocal_block, NonLocal):
        nn.init.normal_(nonlocal_block.add.linear.weight)
    levels = FPN(CHANNELS, 8)(maps(96, 224))  # P6 is no whole part of P5
    size = levels[level].shape[2:]
    gathered = [
        F.adaptive_max_pool2d(x, size) if i < level else F.interpolate(x, size=size, mode="nearest")
        for i, x in enumerate(levels)
    ]
    common = sum(gathered) / 5
    if isinstance(nonlocal_block, NonLocal):
        flat = common.flatten(2).transpose(1, 2)
        pool = nonlocal_block.pool
        attention = (pool.query(flat) @ pool.key(flat).transpose(1, 2)).softmax(dim=-1)  # not scaled
        added = nonlocal_block.add.linear(attention @ pool.value(flat))
        common = common + added.transpose(1, 2).view_as(common)
    elif refine == "conv":
        common = F.relu(F.conv2d(common, balance.refine[0].weight, balance.refine[0].bias, padding=1))
    for i, (ours, x) in enumerate(zip(balance(levels), levels, strict=True)):
        own = x.shape[2:]
        theirs = F.interpolate(common, size=own) if i < level else F.adaptive_max_pool2d(common, own)
        torch.testing.assert_close(ours, x + theirs, rtol=1e-4, atol=1e-4)
