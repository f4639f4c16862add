"""Backbones with each kind of context block, as ablations build them."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, replace
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gcnet.context import (
    ContextBlock,
    ConvolutionalBlockAttention,
    EfficientChannelAttention,
    GatedChannelTransformation,
    GeneralizedAttention,
    GlobalContext,
    NonLocal,
    SimplifiedNonLocal,
    SqueezeExcitation,
    complexity,
    make_block,
)
from gcnet.context_spec import BLOCKS
from gcnet.errors import GCNetError
from gcnet.models.resnet import ResNet
from gcnet.models.spec import ContextSpec, ModelSpec, ResNetSpec

KINDS = {
    "gc": GlobalContext,
    "snl": SimplifiedNonLocal,
    "nl": NonLocal,
    "ga": GeneralizedAttention,
    "se": SqueezeExcitation,
    "eca": EfficientChannelAttention,
    "cbam": ConvolutionalBlockAttention,
    "gct": GatedChannelTransformation,
}
LAST = {"gc": "add.expand.weight", "ga": "add.factor"}  # what is zero in a fresh block that adds
SMALL = ResNetSpec(blocks=(1, 1, 1, 1), stem_channels=16, base_channels=16, norm="batch", frozen_stages=0)


@pytest.mark.parametrize("stages", [(False, False, True, False), (True, True, True, True)], ids=["c4", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_stands_where_it_should(kind: Any, stages: tuple[bool, bool, bool, bool]) -> None:
    backbone = ResNet(replace(SMALL, context=ContextSpec(block=kind, stages=stages)))
    blocks = {name: type(m) for name, m in backbone.named_modules() if isinstance(m, ContextBlock)}
    assert blocks == {f"layer{i + 1}.0.context": KINDS[kind] for i in range(4) if stages[i]}


@pytest.mark.parametrize("position", ["after1x1", "after_add"])
@pytest.mark.parametrize("kind", ["gc", "snl", "nl", "ga"])
def test_fresh_blocks_that_add_change_nothing_and_learn(kind: Any, position: Any) -> None:
    plain = ResNet(SMALL)
    context = ContextSpec(block=kind, stages=(True,) * 4, position=position)
    backbone = ResNet(replace(SMALL, context=context))
    _, unexpected = backbone.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    torch.nn.init.ones_(backbone.layer4[0].bn3.weight)
    torch.nn.init.ones_(plain.layer4[0].bn3.weight)
    x = torch.randn(2, 3, 64, 96)
    features = backbone(x)
    for ours, theirs in zip(features, plain(x), strict=True):
        assert torch.equal(ours, theirs)
    features[-1].square().sum().backward()
    last = dict(backbone.layer4[0].context.named_parameters())[LAST.get(kind, "add.linear.weight")]
    assert last.grad.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_specs_travel_as_json_also_those_written_before_there_were_kinds(kind: Any) -> None:
    spec = ModelSpec(name="x", class_names=("a",), backbone=replace(SMALL, context=ContextSpec(block=kind)))
    written = json.loads(json.dumps(asdict(spec)))
    assert ModelSpec.from_dict(written) == spec
    del written["backbone"]["context"]["block"]
    context = ModelSpec.from_dict(written).backbone.context
    assert context is not None
    assert context.block == "gc"


def test_files_from_before_options_belonged_to_blocks_are_read() -> None:
    spec = ModelSpec(name="x", class_names=("a",), backbone=replace(SMALL, context=ContextSpec(block="nl")))
    written = json.loads(json.dumps(asdict(spec)))
    written["backbone"]["context"] |= {"ratio": 0.25, "fusion": ["scale"]}
    assert ModelSpec.from_dict(written) == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "GC"}, 'no context block "GC"; did you mean "gc"'),
        ({"block": "gca"}, 'no context block "gca"; '),
        ({"block": "snl", "ratio": 1 / 4}, '"snl" has no option ratio; its options: none'),
        ({"block": "se", "fusion": ("add", "scale")}, '"se" has no option fusion; its options: ratio'),
    ],
    ids=str,
)
def test_unknown_blocks_and_options_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GCNetError, match=message):
        ContextSpec(**fields)
    with pytest.raises(GCNetError, match=message):
        make_block(fields.pop("block"), 64, **fields)


def test_numbers_of_residual_blocks_are_of_four_stages() -> None:
    with pytest.raises(GCNetError, match=r"only is \(\(0,\),\); give the numbers of the blocks of c2, c3"):
        ContextSpec(only=((0,),))


@pytest.mark.parametrize("kind", BLOCKS)
def test_options_of_the_table_are_arguments_with_the_same_defaults(kind: str) -> None:
    parameters = inspect.signature(resolve_name(BLOCKS[kind].made_by)).parameters
    for name, value in ContextSpec(block=kind).options.items():
        assert parameters[name].default == value


@pytest.mark.parametrize("kind", KINDS)
def test_closed_forms_are_what_a_backbone_costs_more(kind: Any) -> None:
    def count(context: ContextSpec | None) -> tuple[int, int]:
        with torch.device("meta"):
            backbone = ResNet(replace(SMALL, context=context)).eval()
            with FlopCounterMode(display=False) as counter:
                backbone(torch.empty(1, 3, 64, 96))
        return sum(p.numel() for p in backbone.parameters()), counter.get_total_flops()

    options = {"ratio": 1 / 4} if "ratio" in BLOCKS[kind].options else {}
    context = ContextSpec(block=kind, stages=(True,) * 4, **options)
    (with_blocks, with_flops), (without, flops) = count(context), count(None)
    each = [
        complexity(make_block(kind, 64 * 2**stage, **options), (16 // 2**stage, 24 // 2**stage))
        for stage in range(4)
    ]
    assert sum(block.parameters for block in each) == with_blocks - without
    assert sum(block.flops for block in each) == with_flops - flops
