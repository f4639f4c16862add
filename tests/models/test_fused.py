"""Fused networks compute what the plain ones do."""

from __future__ import annotations

import pytest
import torch

from gcnet.context import ContextBlock, GlobalContext, LinearTransform, SimplifiedNonLocal, SqueezeExcitation
from gcnet.context.blocks import AveragePool
from gcnet.models import packed
from gcnet.models.fused import FusedResNet
from gcnet.models.resnet import ResNet
from lively import lively_resnet

BLOCKS = {
    "none": None,
    "gc": lambda c: GlobalContext(c, ratio=1 / 4),
    "gc average": lambda c: GlobalContext(c, ratio=1 / 4, pooling="average"),
    "gc scale and add": lambda c: GlobalContext(c, ratio=1 / 4, fusion=("scale", "add")),
    "snl": SimplifiedNonLocal,
    "se": SqueezeExcitation,
    "mean": lambda c: ContextBlock(AveragePool(), add=LinearTransform(c, c)),
}


def small_resnet(block="none", **kwargs) -> ResNet:
    return lively_resnet(BLOCKS[block], **kwargs).eval().requires_grad_(False)


def assert_same_maps(resnet: ResNet, images: int = 1) -> None:
    picture = torch.randn(images, 3, 64, 96)
    network = FusedResNet(resnet)
    for ours, plain in zip(network(picture), resnet(picture), strict=True):
        torch.testing.assert_close(ours, plain, atol=2e-5 * float(plain.abs().max()), rtol=0)
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("position", ["after1x1", "after_add"])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_in_both_places(block, position, images):
    assert_same_maps(small_resnet(block, position=position), images)


@pytest.mark.parametrize("kwargs", [{"groups": 8}, {"deformable_stages": (False, True, True, True)}], ids=str)
def test_groups_and_deformable_convolutions(kwargs):
    assert_same_maps(small_resnet("gc", **kwargs))


def test_without_onednn(monkeypatch):
    monkeypatch.setattr(packed, "_ONEDNN", False)
    assert_same_maps(small_resnet("gc"))


def test_hooks_of_a_block_are_called_in_the_fused_network():
    resnet, seen = small_resnet("gc"), []
    block = next(module for module in resnet.modules() if isinstance(module, GlobalContext))
    block.add.register_forward_hook(lambda *_: seen.append("transform"))
    assert_same_maps(resnet)
    assert seen == ["transform"] * 2  # in the plain network, too
