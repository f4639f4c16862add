"""Frozen parts stay frozen, whatever mode is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from gcnet.context import GlobalContext
from gcnet.models.fpn import BalancedPyramid
from gcnet.models.fused import FusedBlock, FusedResNet
from gcnet.models.layers import make_norm
from gcnet.models.resnet import ResNet
from gcnet.models.rpn import RPN
from gcnet.models.spec import BalanceSpec, ContextSpec, Norm, ResNetSpec, RPNSpec
from gcnet.weights.mmdet_keys import rename


def small(norm: Norm, frozen_stages: int) -> ResNet:
    torch.manual_seed(0)
    return ResNet(
        ResNetSpec((1, 1, 1, 1), stem_channels=16, base_channels=16, norm=norm, frozen_stages=frozen_stages)
    )


@pytest.mark.parametrize(("groups", "group_width"), [(1, 4), (32, 4), (32, 8), (64, 4)])
def test_widths_of_resnext(groups: int, group_width: int) -> None:
    """Of "32x4d" and others in table 1 and section 5.1 of arXiv 1611.05431; 1 group is a plain ResNet."""
    with torch.device("meta"):
        backbone = ResNet(ResNetSpec((2, 1, 1, 1), groups=groups, group_width=group_width))
    for stage in range(4):
        block = getattr(backbone, f"layer{stage + 1}")[-1]
        width = (64 if groups == 1 else groups * group_width) * 2**stage
        assert block.conv1.out_channels == width
        assert tuple(block.conv2.weight.shape) == (width, width // groups, 3, 3)
        assert block.conv2.groups == groups
        assert block.conv3.out_channels == 256 * 2**stage
    assert backbone.out_channels == [256, 512, 1024, 2048]


def filled(backbone: nn.Module) -> nn.Module:
    """In eval mode, with norms that are not at rest."""
    torch.manual_seed(1)
    for name, tensor in backbone.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1:
            tensor.add_(torch.rand(tensor.shape) * 0.4)
    return backbone.eval()


def assert_same_stages(
    ours: ResNet, theirs: nn.Module, stages: list[str], table: list[tuple[str, str]]
) -> None:
    """Our maps are those of another library's network, whose tensors `table` gives our names."""
    state = {rename(name, table): tensor for name, tensor in theirs.state_dict().items()}
    own = ours.state_dict().keys()
    ours.load_state_dict({name: tensor for name, tensor in state.items() if name in own})
    maps: list[torch.Tensor] = []
    for stage in stages:
        theirs.get_submodule(stage).register_forward_hook(lambda module, inputs, output: maps.append(output))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        theirs(x)
        found, fused = ours.eval()(x), FusedResNet(ours)(x)
    assert len(found) == len(maps) == 4
    for own_map, fused_map, map in zip(found, fused, maps, strict=True):
        torch.testing.assert_close(own_map, map, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fused_map, map, rtol=1e-4, atol=1e-4)


def test_regnet_is_torchvisions() -> None:
    spec = ResNetSpec((1, 2, 7, 12), stem_channels=32, widths=(32, 64, 160, 400), group_width=16)
    table = [
        (r"^stem\.0\.", "conv1."),
        (r"^stem\.1\.", "bn1."),
        (r"^trunk_output\.block(\d)\.block\d-(\d+)\.", r"layer\1.\2."),
        (r"\.proj\.", ".downsample."),
        *((rf"\.f\.{letter}\.0\.", f".conv{n}.") for n, letter in enumerate("abc", 1)),
        *((rf"\.f\.{letter}\.1\.", f".bn{n}.") for n, letter in enumerate("abc", 1)),
    ]
    stages = [f"trunk_output.block{n}" for n in range(1, 5)]
    assert_same_stages(ResNet(spec), filled(models.regnet_x_400mf(weights=None)), stages, table)


def test_res2net_is_timms() -> None:
    timm = pytest.importorskip("timm")
    spec = ResNetSpec((1, 2, 1, 1), scales=4, group_width=26, deep_stem=True, avg_down=True, frozen_stages=0)
    network = timm.create_model("res2net50d", layers=(1, 2, 1, 1), stem_width=32)
    network.layer1[0].pool = nn.Identity()  # as in mmdetection: without a stride, nothing is averaged
    table = [(r"\.convs\.(\d)\.", r".conv2.convs.\1.0."), (r"\.bns\.(\d)\.", r".conv2.convs.\1.1.")]
    assert_same_stages(ResNet(spec), filled(network), [f"layer{n}" for n in range(1, 5)], table)


def test_deformable_stages_start_as_ordinary_ones() -> None:
    sizes = {"blocks": (1, 2, 1, 1), "stem_channels": 16, "base_channels": 16, "groups": 4, "group_width": 16}
    plain = ResNet(ResNetSpec(**sizes)).eval()
    moved = ResNet(ResNetSpec(**sizes, deformable_stages=(False, True, False, True))).eval()
    missing, unexpected = moved.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    blocks = ("layer2.0", "layer2.1", "layer4.0")
    assert missing == [f"{block}.conv2.offset.{part}" for block in blocks for part in ("weight", "bias")]
    x = torch.randn(1, 3, 64, 96)
    for ours, theirs in zip(moved(x), plain(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def training_batch_norms(backbone: ResNet) -> set[str]:
    return {n for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training}


@pytest.mark.parametrize("frozen_stages", range(6))
def test_frozen_stages_count_from_the_stem(frozen_stages: int) -> None:
    backbone = small("batch", frozen_stages).train()
    prefixes = ["conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."]
    frozen = tuple(prefixes[: frozen_stages + 1] if frozen_stages else [])
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (not name.startswith(frozen) if frozen else True), name
    assert all(not f"{name}.".startswith(frozen) for name in training_batch_norms(backbone)) or not frozen


def test_train_and_eval_modes() -> None:
    backbone = small("sync", 2)
    assert backbone.train() is backbone
    running = training_batch_norms(backbone)
    assert "layer2.0.bn1" in running
    assert not any(name.startswith(("bn1", "layer1")) for name in running)
    backbone.eval()
    assert not training_batch_norms(backbone)
    assert not backbone.training
    assert not training_batch_norms(small("frozen_stats", 2).train())


def test_statistics_move_only_where_they_are_trained() -> None:
    for norm, moves in (("frozen_stats", False), ("batch", True)):
        backbone = small(norm, 2).train()
        before = {n: b.clone() for n, b in backbone.named_buffers()}
        backbone(torch.randn(2, 3, 64, 64))
        changed = {n for n, b in backbone.named_buffers() if not torch.equal(b, before[n])}
        assert bool(changed) == moves
        assert not any(name.startswith(("bn1", "layer1")) for name in changed)


def test_frozen_statistics_keep_their_affine_part_trainable() -> None:
    backbone = small("frozen_stats", 2)
    assert backbone.get_parameter("layer2.0.bn1.weight").requires_grad
    assert not backbone.get_parameter("layer1.0.bn1.weight").requires_grad


def test_strides_and_channels() -> None:
    backbone = small("group", 0).eval()
    maps = backbone(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.out_channels, (4, 8, 16, 32), strict=True)
    ]


def test_blocks_start_as_their_shortcut() -> None:
    block = small("group", 0).layer2[0]
    x = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(block(x), block.downsample(x).relu())


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (8, 1), (64, 8), (256, 32), (2048, 32)])
def test_group_norm_has_groups_of_eight_or_more_if_there_are_so_many(channels: int, groups: int) -> None:
    norm = make_norm("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups
    if channels >= 32:
        assert make_norm("group32", channels).num_groups == 32


def test_basic_blocks_and_a_deep_stem_by_their_steps() -> None:
    """ResNet-18's block (arXiv 1512.03385), with the stem and shortcuts of arXiv 1812.01187, section 4.2."""
    torch.manual_seed(0)
    spec = ResNetSpec(
        (1, 1, 1, 1), 16, 16, block="basic", deep_stem=True, avg_down=True, zero_init_residual=False
    )
    resnet = ResNet(spec).eval()
    assert resnet.out_channels == [16, 32, 64, 128]
    x = torch.randn(2, 3, 72, 104)  # the map of c5 has sides of 3 and 4: some cells of the mean are cut off
    stem, out = resnet.conv1, x
    for conv, norm in ((stem[0], stem[1]), (stem[3], stem[4]), (stem[6], resnet.bn1)):
        out = norm(conv(out)).relu()
    assert [(stem[i].stride, stem[i].out_channels) for i in (0, 3, 6)] == [
        ((2, 2), 8),
        ((1, 1), 8),
        ((1, 1), 16),
    ]
    out = F.max_pool2d(out, 3, 2, 1)
    for stage, found in enumerate(resnet(x), 1):
        block = getattr(resnet, f"layer{stage}")[0]
        branch = block.bn2(block.conv2(block.bn1(block.conv1(out)).relu()))
        if stage > 1:
            mean = F.avg_pool2d(out, 2, 2, ceil_mode=True, count_include_pad=False)
            out = block.downsample[2](block.downsample[1](mean))
        out = (branch + out).relu()
        torch.testing.assert_close(found, out)


def test_basic_blocks_are_torchvisions() -> None:
    theirs = models.resnet18(weights=None).eval()
    ours = ResNet(ResNetSpec((2, 2, 2, 2), block="basic")).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    expected = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x)))))
    expected = theirs.layer4(theirs.layer3(theirs.layer2(expected)))
    torch.testing.assert_close(ours(x)[-1], expected)


def test_blocks_in_some_places_work_in_order() -> None:
    """Two after the last convolution, one within, one in one residual block alone."""
    torch.manual_seed(0)
    c3 = (False, True, False, False)
    contexts = (
        ContextSpec(1 / 2, c3, "after_conv2"),
        ContextSpec(1 / 4, c3, fusion=("scale",)),
        ContextSpec(1 / 8, c3, only=((), (1,), (), ())),
    )
    spec = ResNetSpec((1, 2, 1, 1), base_channels=16, context=contexts[0], more_context=contexts[1:])
    resnet = ResNet(replace(spec, zero_init_residual=False)).eval()
    names = {name for name, module in resnet.named_modules() if isinstance(module, GlobalContext)}
    assert names == {
        f"layer2.{where}" for where in ("0.context", "0.context2", "1.context", "1.context2", "1.context3")
    }
    block, x = resnet.layer2[1], torch.randn(2, 128, 6, 8)
    for parameter in (p for name, p in block.named_parameters() if "context" in name):
        nn.init.normal_(parameter, std=0.3)
    out = block.bn1(block.conv1(x)).relu()
    out = block.context(block.bn2(block.conv2(out)).relu())
    out = block.context3(block.context2(block.bn3(block.conv3(out))))
    torch.testing.assert_close(block(x), (out + x).relu())
    torch.testing.assert_close(FusedBlock(block)(x), (out + x).relu(), rtol=1e-4, atol=1e-4)


def test_parts_that_cannot_be_built() -> None:
    """A model file's description may ask for them: build_for makes one line of a ValueError."""
    with pytest.raises(ValueError, match="64 channels cannot be divided into 7 offset groups"):
        ResNet(ResNetSpec(deformable_stages=(True, False, False, False), offset_groups=7))
    with pytest.raises(ValueError, match="no level 5"):
        BalancedPyramid(8, BalanceSpec(level=5))
    with pytest.raises(ValueError, match="no anchors"):
        RPN(8, RPNSpec(anchor_scale=()))


@pytest.mark.parametrize("other", [{"groups": 2}, {"widths": (16, 32, 48, 64)}])
def test_parts_have_neither_groups_nor_widths(other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="parts of a Res2Net have neither groups nor widths"):
        ResNet(ResNetSpec((1, 1, 1, 1), scales=4, **other))  # type: ignore[arg-type]


def test_basic_blocks_have_no_groups() -> None:
    with pytest.raises(ValueError, match="neither deformable convolutions nor groups"):
        ResNet(ResNetSpec(block="basic", groups=2))
