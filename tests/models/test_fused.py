"""Fused networks compute what the plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gcnet.context import ContextBlock, GlobalContext, LinearTransform, SimplifiedNonLocal, SqueezeExcitation
from gcnet.context.blocks import AveragePool
from gcnet.models import fused
from gcnet.models.fused import Float32, FusedConv, FusedResNet, PackedLinear
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
    monkeypatch.setattr(fused, "_ONEDNN", False)
    assert_same_maps(small_resnet("gc"))


def test_fresh_weights_after_a_move():
    conv = nn.Conv2d(4, 8, 3, padding=1)
    ours, picture = FusedConv(conv), torch.randn(1, 4, 9, 9)
    ours(picture)
    ours = ours.double()
    torch.testing.assert_close(ours(picture.double()), conv.double()(picture.double()))


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
def test_a_linear_layer_of_any_number_of_rows(monkeypatch, dtype, off, onednn):
    monkeypatch.setattr(fused, "_ONEDNN", onednn and fused._ONEDNN)
    layer = nn.Linear(40, 30).to(dtype)
    ours = PackedLinear(layer)
    for rows in (50, 3, 0):
        x = torch.randn(rows, 40, dtype=dtype)
        torch.testing.assert_close(ours(x), layer(x), atol=off, rtol=off)
    ours = ours.double()
    torch.testing.assert_close(ours(x.double()), layer.double()(x.double()))


@pytest.mark.parametrize("images", [1, 3])
def test_full_precision_in_parts_of_a_map_is_that_of_the_whole(monkeypatch, images):
    monkeypatch.setattr(fused, "_CACHED", 30)  # two rows and a last one
    conv = nn.Conv2d(8, 5, 1)
    picture = torch.randn(images, 8, 7, 13).bfloat16().to(memory_format=torch.channels_last)
    ours = Float32(FusedConv(conv))(picture)
    torch.testing.assert_close(ours, conv(picture.float()))
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_an_exported_layer_in_full_precision_takes_maps_of_other_sizes():
    conv = nn.Conv2d(8, 5, 1)
    layer = Float32(FusedConv(conv))
    sizes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.export.export(layer, (torch.randn(1, 8, 40, 60).half(),), dynamic_shapes=sizes)
        picture = torch.randn(1, 8, 90, 70).half()
        torch.testing.assert_close(program.module()(picture), conv(picture.float()))


def test_hooks_of_a_block_are_called_in_the_fused_network():
    resnet, seen = small_resnet("gc"), []
    block = next(module for module in resnet.modules() if isinstance(module, GlobalContext))
    block.add.register_forward_hook(lambda *_: seen.append("transform"))
    assert_same_maps(resnet)
    assert seen == ["transform"] * 2  # in the plain network, too
