"""What a configuration says, in the words of each generation; and what is done about it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import CASCADE, NAMES, as_mmdet, built, equal, saved, small

from gcnet.cli import main
from gcnet.errors import GCNetError
from gcnet.lab.subjects import random_batch
from gcnet.models.detector import Detector
from gcnet.models.spec import AggregateSpec, BalanceSpec, CascadeSpec, ContextSpec, ModelSpec, SoftNMSSpec
from gcnet.weights import config_text
from gcnet.weights.catalog import find
from gcnet.weights.fetch import LocalFile
from gcnet.weights.files import save_model
from gcnet.weights.load import load_model, read_model
from gcnet.weights.mmdet_config import Config, named_config, read_config
from gcnet.weights.mmdet_keys import standardise
from gcnet.weights.parts import describe_parts

CAFFE = replace(small(), backbone=replace(small().backbone, style="caffe"))

VERSION_3 = """
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(bgr_to_rgb=False, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]),
    backbone=dict(type='ResNet', style='caffe', frozen_stages=2, norm_cfg=dict(type='BN'), norm_eval=True),
    rpn_head=dict(
        anchor_generator=dict(scales=[4], ratios=[0.5, 1.0, 1.5], strides=[4, 8, 16, 32, 64]),
        test_cfg=dict(nms=dict(iou_threshold=0.6, type='nms'), nms_pre=900, max_per_img=800)),
    roi_head=dict(
        bbox_roi_extractor=dict(type='SingleRoIExtractor', finest_scale=28),
        bbox_head=[dict(num_classes=3), dict(bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1]))],
        test_cfg=dict(nms=dict(iou_threshold=0.3, type='nms'), max_per_img=150, score_thr=0.1)))
train_pipeline = [dict(type='Resize', scale=(1333, 640), keep_ratio=True)]
test_pipeline = [dict(type='Resize', scale=(512, 640), keep_ratio=True)]
test_cfg = dict(type='TestLoop')
"""
VERSION_2 = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
model = dict(
    backbone=dict(type='ResNet', style='caffe', frozen_stages=2, norm_cfg=dict(type='BN'), norm_eval=True),
    rpn_head=dict(anchor_generator=dict(scales=[4], ratios=[1/2, 1.0, 1.5], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(
        bbox_roi_extractor=dict(type='SingleRoIExtractor', finest_scale=28),
        bbox_head=[dict(num_classes=3), dict(bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1]))]),
    train_cfg=dict(rpn_proposal=dict(nms_pre=2000), rcnn=dict(assigner=dict())),
    test_cfg=dict(
        rpn=dict(nms=dict(type='nms', iou_threshold=0.6), nms_pre=900, max_per_img=800),
        rcnn=dict(score_thr=0.1, nms=dict(type='nms', iou_threshold=0.3), max_per_img=150)))
test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(640, 512), transforms=[dict(type='Normalize')])]
"""
SAID = Config(
    style="caffe",
    channels="bgr",
    mean=(103.53, 116.28, 123.675),
    std=(1.0, 1.0, 1.0),
    image_size=(640, 512),
    anchor_scale=4.0,
    anchor_ratios=(0.5, 1.0, 1.5),
    anchor_strides=(4, 8, 16, 32, 64),
    stds=((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1)),
    finest_scale=28.0,
    nms_threshold=0.3,
    detections=150,
    rpn_nms_threshold=0.6,
    pre_nms=900,
    proposals=800,
    norm="frozen_stats",
    frozen_stages=3,
    standardised=(),
    notes=("its own score threshold was 0.1",),
    unsupported=(),
)


@pytest.mark.parametrize("text", [VERSION_2, VERSION_3], ids=["2.x", "3.x"])
def test_the_words_of_each_version(text: str) -> None:
    assert read_config(text) == SAID


def test_the_words_of_version_1() -> None:
    text = """
model = dict(
    pretrained='torchvision://resnet50', backbone=dict(type='ResNet', style='pytorch'),
    rpn_head=dict(anchor_scales=[4], anchor_ratios=[1.0], anchor_strides=[4, 8, 16, 32, 64]),
    bbox_head=dict(type='SharedFCBBoxHead', target_stds=[0.05, 0.05, 0.1, 0.1]))
test_cfg = dict(rpn=dict(nms_pre=900, max_num=800, nms_thr=0.6),
                rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_thr=0.4), max_per_img=50))
"""
    said = read_config(text)
    assert said is not None
    assert (said.anchor_scale, said.anchor_ratios, said.stds) == (4.0, (1.0,), ((0.05, 0.05, 0.1, 0.1),))
    assert (said.nms_threshold, said.detections) == (0.4, 50)
    assert (said.proposals, said.rpn_nms_threshold) == (800, 0.6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "nms = 1\nmodel = dict(test_cfg=dict(rcnn=dict(nms=dict(type='nms_match'))))",
            "nms of type nms_match",
        ),
        ("test_cfg = dict(rcnn=dict(nms=dict(type='soft_nms', method='naive')))", "method=naive of its nms"),
        ("test_cfg = dict(rcnn=dict(nms=dict(type='soft_nms', sigma=0)))", "NMS with sigma=0"),
        ("test_cfg = dict(rcnn=dict(nms=dict(type='soft_nms', min_score='0')))", "NMS with min_score=0"),
        ("test_cfg = dict(rpn=dict(nms=dict(type='soft_nms')))", "soft_nms of proposals"),
        ("test_pipeline = [dict(scale=(512, 512), keep_ratio=False)]", "stretched"),
        ("anchor_generator = dict(scales=[2, 4], ratios=[1.0])", "3 anchors at every place, where 2 are"),
        ("anchor_generator = dict(strides=[8, 16, 32])", "strides [8, 16, 32]"),
        ("backbone = dict(dilations=(1, 1, 2, 4))", "dilations"),
        ("bbox_head = dict(bbox_coder=dict(type='TBLRBBoxCoder'))", "bbox_coder of type TBLRBBoxCoder"),
        ("bbox_head = dict(loss_cls=dict(type='SeesawLoss'))", "classes that are scored as for SeesawLoss"),
        ("bbox_roi_extractor = dict(type='GenericRoIExtractor')", "levels that are summed as they are"),
        ("bbox_roi_extractor = dict(type='SumRoIExtractor')", "bbox_roi_extractor of type SumRoIExtractor"),
        (
            "bbox_roi_extractor = dict(type='GenericRoIExtractor', aggregation='concat', pre_cfg="
            "dict(type='ConvModule', kernel_size=5, act_cfg=None))",
            "aggregation=concat of its bbox_roi_extractor; act_cfg=None of its pre_cfg",
        ),
        ("_base_ = '../_base_/models/mask-rcnn_r50_fpn.py'", "builds on others"),
        ("backbone = dict(type='ResNeSt')", "backbone of type ResNeSt"),
        ("backbone = dict(type='RegNet', strides=(1, 2, 2, 2))", "strides=[1, 2, 2, 2] of its backbone"),
        ("backbone = dict(conv_cfg=dict(type='ConvAWS'))", "conv_cfg of type ConvAWS"),
        ("backbone = dict(plugins=[dict(cfg=dict(type='DropBlock'))])", "a plugin of type DropBlock"),
        (
            "backbone = dict(plugins=[dict(cfg=dict(type='GeneralizedAttention', spatial_range=4))])",
            "spatial_range=4 of its GeneralizedAttention",
        ),
        (
            "backbone = dict(plugins=[dict(cfg=dict(type='GeneralizedAttention', attention_type='11'))])",
            "generalized attention with (9, '11', 2) for heads, terms and stride",
        ),
        (
            "ga = 'GeneralizedAttention'\n"
            "backbone = dict(plugins=[dict(cfg=dict(type=ga)), dict(cfg=dict(type=ga, kv_stride=1))])",
            "generalized attention of 2 kinds",
        ),
        ("backbone = dict(norm_cfg=dict(type='GN', num_groups=16))", "num_groups=16 of its norm_cfg"),
        ("neck = [dict(type='FPN'), dict(type='BFP'), dict(type='FPN')]", "3 necks in a row"),
        ("neck = dict(type='FPN', start_level=1)", "start_level=1"),
        ("rpn_head = dict(type='RPNHead', loss_cls=dict(use_sigmoid=False))", "softmax"),
        ("mask_roi_extractor = dict(roi_layer=dict(output_size=28))", "regions of 28 cells a side"),
        (
            "bbox_roi_extractor = dict(roi_layer=dict(sampling_ratio=2))\n"
            "mask_roi_extractor = dict(roi_layer=dict(sampling_ratio=0))",
            "sampling_ratio=0 of its roi_layer; sampling_ratio=2 of its roi_layer",
        ),
    ],
)
def test_what_no_model_has_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = saved(built(small()), text, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match=r"x\.pth cannot be read, because it has what no model") as raised:
        load_model(path)
    assert words in str(raised.value)


def test_anchors_and_deltas_of_ones_own(tmp_path: Path) -> None:
    text = """
rpn_head = dict(anchor_generator=dict(octave_base_scale=4, scales_per_octave=3, ratios=[1.0],
                                      strides=[2, 8, 16, 32, 64]),
                bbox_coder=dict(target_stds=[0.5, 0.5, 1.0, 1.0]))
bbox_head = dict(bbox_coder=dict(type='DeltaXYWHBBoxCoder'))
"""
    spec = load_model(saved(built(small()), text, tmp_path / "x.pth")).spec
    assert isinstance(spec, ModelSpec)
    assert spec.rpn.anchor_scales == pytest.approx((4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)))
    assert (spec.rpn.anchor_strides, spec.rpn.stds) == ((2, 8, 16, 32, 64), (0.5, 0.5, 1.0, 1.0))
    assert spec.roi.stds == (1.0, 1.0, 1.0, 1.0)  # a coder that does not say divides by nothing


@pytest.mark.parametrize("text", ["def (", "a = " + "(" * 5000 + ")" * 5000, "x" * (2 << 20), "\\0"])
def test_texts_that_cannot_be_parsed(text: str) -> None:
    assert read_config(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "a, b = 1, 2\nimport os\nfrom mmdet.models import ResNet\nlow = 103.53\n"
        "img_norm_cfg: dict = dict(mean=[low, 116.28, 12 * 10 + 3.675], std=[1.0] + [1.0], to_rgb=False)\n"
        "norm = dict(mean=[low, 116.28, 123.675], std=[1.0, 1.0, 1.0])\n"
        "img_norm_cfg = dict(**norm, to_rgb=False)\n"
        "model = dict(backbone=dict(\n"
        "    type=ResNet, style=f'c{\"af\"}' + 'fe', frozen_stages=-1, norm_eval=False))\ndel norm, os",
        '{"img_norm_cfg": {"mean": [103.53, 116.28, 123.675], "std": [1, 1, 1], "to_rgb": false},'
        ' "model": {"backbone": {"type": "mmdet.ResNet", "style": "caffe", "frozen_stages": -1,'
        ' "norm_cfg": {"type": "BN"}, "norm_eval": false}}}',
        {
            "img_norm_cfg": {"mean": (103.53, 116.28, 123.675), "std": (1, 1, 1), "to_rgb": False},
            "model": {"backbone": {"depth": 50, "style": "caffe", "frozen_stages": -1, "norm_eval": False}},
        },
    ],
    ids=["Python", "JSON", "values"],
)
def test_one_thing_written_in_several_ways(text: str | dict[str, Any]) -> None:
    said = read_config(text)
    assert said == Config(
        **{name: getattr(SAID, name) for name in ("style", "channels", "mean", "std", "standardised")},
        norm="batch",
        frozen_stages=0,
        notes=(),
        unsupported=(),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = dict(neck=dict(num_outs=len('abcde')))", "num_outs=(computed) of its neck"),
        (
            "model = dict(rpn_head=dict(anchor_generator=dict(scales=s)))",
            "(model.rpn_head.anchor_generator.scales)",
        ),
        ("anchor_generator = dict(scales=[2 * s])", "(model.anchor_generator.scales.0)"),
        ("img_scale = (1e999, 2)", "(test_pipelines.0.0.img_scale.0)"),
        ("img_norm_cfg = dict(mean=[x for x in y])", "images are normalised by (computed)"),
        ("img_norm_cfg = dict(mean=[1, 2, 3], std=[0, 1, 1])", "normalised by [1, 2, 3] and [0, 1, 1]"),
        ("model = dict()\nmodel['backbone'] = dict(style='caffe')", "more than name values (line 2)"),
        ("with read_base():\n    from .base import *", "more than name values (line 1)"),
        ("model = dict(neck=dict())\ndel model['neck']", "more than name values (line 2)"),
        ("model = dict()\nmodel['neck'], b = dict(), 2", "more than name values (line 2)"),
        ("s = 'caffe'\ns, b = 1, 2\nbackbone = dict(style=s)", "(model.backbone.style)"),
        ("model = dict(backbone=dict(style=f'{1:d}'))", "(model.backbone.style)"),
        ("name = f()\nmodel = dict(backbone={name: 1})", "**=1 of its backbone"),
        (
            "model = dict(mask_roi_extractor=dict(finest_scale=f()))",
            "(model.mask_roi_extractor.finest_scale)",
        ),
        ("model = dict(backbone=dict(type='" + "R" * 999 + "'))", f"backbone of type {'R' * 37}..."),
    ],
)
def test_what_would_have_to_be_run_is_named(text: str, words: str) -> None:
    said = read_config(text)
    assert said is not None
    assert any(words in reason for reason in said.unsupported or ()), said.unsupported


def test_numbers_of_classes_are_told_by_tensors() -> None:
    """People count their list of names."""
    text = "classes = ('a', 'b')\nmodel = dict(roi_head=dict(bbox_head=[dict(num_classes=len(classes))]))"
    said = read_config(text)
    assert said is not None
    assert not said.unsupported


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = dict(rpn_head=dict(anchor_generator=dict(scales=[-8])))", r"anchor_scale is -8\.0"),
        ("model = dict(roi_head=dict(bbox_roi_extractor=dict(finest_scale=0)))", r"finest_scale is 0\.0"),
        ("test_pipeline = [dict(type='Resize', img_scale=(10**9, 10**9))]", r"image_size\[0\] is 1000000000"),
        ("model = dict(backbone=dict(style=3))", "style=3 of its backbone"),
        ("anchor_generator = dict(scales=4)", "anchors with scales 4"),
        ("bbox_coder = dict(target_stds=[0.1, 0.2])", r"deltas with deviations \[0.1, 0.2\]"),
        ("model = dict(test_cfg=dict(rpn=dict(nms_pre=-1)))", "pre_nms_test is -1"),
        ("model = dict(test_cfg=dict(rpn=dict(max_per_img=0)))", "proposals_test is 0"),
        ("model = dict(test_cfg=dict(rcnn=dict(max_per_img=-1)))", "detections is -1"),
    ],
)
def test_numbers_that_no_model_can_have(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match=words):
        load_model(saved(built(small()), text, tmp_path / "x.pth"))


def test_a_configuration_that_is_none_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_text, "MOST_VALUES", 1000)
    names = "\n".join(f"{b} = [{', '.join([a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    for text in ("model = dict(", "a = 1\n" + names):
        model = load_model(saved(built(small()), text, tmp_path / "x.pth"))
        assert "its configuration is no plain Python" in model.provenance["note"]


@pytest.mark.parametrize("name", ["/home/u/configs/x.py", "configs/x.py", r"C:\\x\\y.py", "a=b (1)/x.py"])
def test_the_name_of_a_file_before_its_text(name: str) -> None:
    """mmcv stored it until it stored what it had read, printed."""
    assert read_config(f"{name}\n{VERSION_2}") == SAID


def test_nothing_is_executed(tmp_path: Path) -> None:
    text = f"import os\nos.mkdir({str(tmp_path / 'x')!r})\nstyle = os.getcwd()\nbackbone = dict(style=style)"
    read_config(text)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "threshold", "soft"),
    [
        ("", 0.3, SoftNMSSpec()),
        ("iou_threshold=0.5, min_score=0.05", 0.5, SoftNMSSpec(min_score=0.05)),
        ("iou_thr=0.6, method='gaussian', sigma=0.4", 0.6, SoftNMSSpec("gaussian", 0.4)),
    ],
)
def test_soft_nms(options: str, threshold: float, soft: SoftNMSSpec, tmp_path: Path) -> None:
    text = f"model = dict(test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms', {options}))))"
    path = saved(built(small()), text, tmp_path / "x.pth")
    found = load_model(path)
    assert isinstance(found.spec, ModelSpec)
    assert (found.spec.roi.nms_threshold, found.spec.roi.soft_nms) == (threshold, soft)
    save_model(found, out := tmp_path / "x.safetensors")
    assert load_model(out).spec == found.spec


def test_blue_first_is_read_as_red_first(tmp_path: Path) -> None:
    """Detections are those of the same network on the same images with their channels in the other order."""
    source = built(CAFFE)
    found = load_model(saved(source, VERSION_3, tmp_path / "x.pth"))
    assert isinstance(found, Detector)
    first = found.backbone.conv1.weight
    assert torch.equal(first, source.backbone.conv1.weight.flip(1))
    spec = found.spec
    assert (spec.image_mean, spec.image_std) == ((123.675, 116.28, 103.53), (1.0, 1.0, 1.0))
    assert (spec.image_size, spec.name, spec.backbone.style) == ((640, 512), "x", "caffe")
    assert (spec.rpn.anchor_scale, spec.rpn.anchor_ratios) == (4.0, (0.5, 1.0, 1.5))
    assert (spec.roi.nms_threshold, spec.roi.detections, spec.roi.finest_scale) == (0.3, 150, 28.0)
    assert found.provenance["note"] == "its own score threshold was 0.1"


def test_stages_of_a_cascade_have_the_deviations_that_are_written(tmp_path: Path) -> None:
    heads = "bbox_head = [dict(num_classes=3), dict(num_classes=3), dict(num_classes=3)]"
    found = load_model(saved(built(small(cascade=CASCADE)), heads, tmp_path / "x.pth"))
    assert isinstance(found.spec, ModelSpec)
    assert found.spec.cascade is not None
    assert found.spec.cascade.stds == ((0.1, 0.1, 0.2, 0.2),) * 3


@pytest.mark.parametrize("cascade", [None, CASCADE])
@pytest.mark.parametrize("agnostic", [False, True])
def test_boxes_of_classes_or_of_all(agnostic: bool, cascade: object, tmp_path: Path) -> None:
    spec = small(cascade=cascade, roi=replace(small().roi, class_agnostic=agnostic))
    source = built(spec)
    found = load_model(saved(source, None, tmp_path / "x.pth"))
    assert isinstance(found, Detector)
    assert equal(found, source)


@pytest.mark.parametrize("said", ["name", "config"])
def test_weight_standardisation_goes_into_the_weights(said: str, tmp_path: Path) -> None:
    """As mmcv's ConvWS computes it at each call: the deviation of a sample, and 1e-5 beside it."""
    source = built(small())
    config = "backbone = dict(conv_cfg=dict(type='ConvWS'))\nmask_head = dict(conv_cfg=dict(type='ConvWS'))"
    name = "mask_rcnn_r50_fpn_gn_ws-all_2x_coco.pth" if said == "name" else "x.pth"
    found = load_model(saved(source, config if said == "config" else None, tmp_path / name))
    assert isinstance(found, Detector)
    assert "weight standardisation" in found.provenance["note"]
    ours, theirs = found.state_dict(), source.state_dict()
    everywhere = ("neck.lateral.0.weight", "neck.output.3.weight") if said == "name" else ()
    blocks = [f"backbone.layer2.0.{layer}.weight" for layer in ("conv1", "conv2", "conv3", "downsample.0")]
    standardised = ("backbone.conv1.weight", *blocks, "roi_heads.mask_head.convs.1.weight", *everywhere)
    for key in standardised:
        flat = theirs[key].flatten(1)
        expected = (flat - flat.mean(1)[:, None]) / (flat.std(1)[:, None] + 1e-5)
        torch.testing.assert_close(ours[key].flatten(1), expected)
    rest = [key for key in ours if key.endswith("weight") and not key.startswith(("neck.", "backbone."))]
    for key in (*rest, "backbone.layer2.0.context.add.reduce.weight", "backbone.bn1.weight"):
        assert key in standardised or ".convs." in key or torch.equal(ours[key], theirs[key]), key


def test_weight_standardisation_of_averaged_shortcuts() -> None:
    """Their convolution comes second, where others have their norm."""
    weights = {f"backbone.layer2.0.downsample.{index}.weight": torch.rand(4, 2, 1, 1) for index in (0, 1)}
    weights["backbone.layer3.0.downsample.1.weight"] = norm = torch.rand(4)
    ours = standardise(weights, ["backbone"])
    assert not any(torch.equal(ours[name], weights[name]) for name in list(weights)[:2])
    assert ours["backbone.layer3.0.downsample.1.weight"] is norm


PLUGINS = """backbone = dict(plugins=[
    dict(cfg=dict(type='ContextBlock', ratio=1/4, postfix='_b'), position='after_conv3',
         stages=(False, True, True, True)),
    dict(cfg=dict(type='ContextBlock', ratio=1/8), position='after_conv1',
         stages=(False, False, False, True))])"""


GENERALIZED = {
    "2.x": """backbone = dict(plugins=[dict(position='after_conv2', stages=(False, False, True, True),
        cfg=dict(type='GeneralizedAttention', spatial_range=-1, num_heads=4, attention_type='TERMS',
                 kv_stride=3))])""",
    "1.x": """backbone = dict(stage_with_gen_attention=((), (), (0, 1), (0,)), gen_attention=dict(
        spatial_range=-1, num_heads=4, attention_type='TERMS', kv_stride=3))""",
}


@pytest.mark.parametrize("terms", ["1111", "0010", "1000", "0001"])
@pytest.mark.parametrize("version", GENERALIZED)
def test_generalized_attention(version: str, terms: str, tmp_path: Path) -> None:
    """Its tensors have mmcv's names and shapes: kernels of 1 x 1 where this is a convolution there."""
    context = ContextSpec(
        block="ga",
        stages=(False, False, True, True),
        position="after_conv2",
        heads=4,
        terms=terms,
        key_stride=3,
    )
    source = built(small(backbone=replace(small().backbone, context=context)))
    state = as_mmdet(source)
    block = {name.partition("context_block.")[2] for name in state if "layer4.0.context_block" in name}
    has = [digit == "1" for digit in terms]
    assert block == {
        *("value_conv.weight", "proj_conv.weight", "proj_conv.bias", "gamma"),
        *(["query_conv.weight"] if has[0] or has[1] else []),
        *(["key_conv.weight"] if has[0] or has[2] else []),
        *(["appr_geom_fc_x.weight", "appr_geom_fc_y.weight"] if has[1] or has[3] else []),
        *(["appr_bias"] if has[2] else []),
        *(["geom_bias"] if has[3] else []),
    }
    theirs = {
        name.replace("context_block", "gen_attention_block"): tensor[..., None, None]
        if re.search(r"context_block\..*_conv\.weight", name)
        else tensor
        for name, tensor in state.items()
    }
    config = GENERALIZED[version].replace("TERMS", terms)
    torch.save({"state_dict": theirs, "meta": {"config": config, "CLASSES": NAMES}}, tmp_path / "x.pth")
    found = load_model(tmp_path / "x.pth")
    assert isinstance(found, Detector)
    assert found.spec.backbone.contexts == (context,)
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in source.state_dict().items())
    for text, words in (
        (None, "nothing says its heads"),
        (config.replace(terms, "0110"), "generalized attention of other terms than 0110"),
    ):
        meta = {"CLASSES": NAMES} | ({"config": text} if text else {})
        torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "x.pth")
        with pytest.raises(GCNetError, match=words):
            load_model(tmp_path / "x.pth")


SUMMED = """TYPE_roi_extractor = dict(type='GenericRoIExtractor', aggregation='sum',
    roi_layer=dict(type='RoIAlign', output_size=SIDE, sampling_ratio=2), out_channels=16,
    featmap_strides=[4, 8, 16, 32],
    pre_cfg=dict(type='ConvModule', in_channels=16, out_channels=16, kernel_size=5, padding=2, inplace=False),
    post_cfg=dict(type='GeneralizedAttention', in_channels=16, spatial_range=-1, num_heads=6,
                  attention_type='0100', kv_stride=2))
"""


def test_regions_that_are_read_at_all_levels(tmp_path: Path) -> None:
    """GRoIE: each of the two extractors, of each stage of a cascade, has its own layers."""
    context = ContextSpec(block="ga", heads=6, terms="0100", key_stride=2, mirrored=True)
    roi = replace(small().roi, aggregate=AggregateSpec(5, context), sampling=2)
    text = "".join(
        SUMMED.replace("TYPE", kind).replace("SIDE", n) for kind, n in (("bbox", "7"), ("mask", "14"))
    )
    for cascade in (None, CascadeSpec()):
        source = built(small(roi=roi, cascade=cascade))
        path = saved(source, text, tmp_path / "x.pth")
        stage = "0." if cascade else ""
        names = set(torch.load(path)["state_dict"])
        for kind in ("bbox", "mask"):
            assert {
                f"roi_head.{kind}_roi_extractor.{stage}{name}"
                for name in ("pre_module.conv.weight", "post_module.query_conv.weight", "post_module.gamma")
            } < names
        found = load_model(path)
        assert isinstance(found, Detector)
        assert found.spec.roi.aggregate == roi.aggregate
        assert found.spec.roi.sampling == 2
        assert "regions of all levels summed" in "".join(describe_parts(found.spec))
        batch = random_batch(1, (96, 128))
        (ours,), (theirs,) = found.predict(batch), source.predict(batch)
        assert len(ours) > 10
        assert torch.equal(ours.mask_probs, theirs.mask_probs)
    only = text.split("mask_roi", maxsplit=1)[0] + "mask_roi_extractor = dict(type='SingleRoIExtractor')"
    state = {name: tensor for name, tensor in as_mmdet(source).items() if "mask_roi" not in name}
    torch.save({"state_dict": state, "meta": {"config": only, "CLASSES": NAMES}}, path)
    with pytest.raises(GCNetError, match="masks that are read in another way than those of boxes"):
        load_model(path)


def test_where_plugins_are(tmp_path: Path) -> None:
    said = read_config(PLUGINS)
    assert said is not None
    assert said.plugins == ((), ("after_conv3",), ("after_conv3",), ("after_conv1", "after_conv3"))
    c5 = (False, False, False, True)
    first = ContextSpec(1 / 8, c5, "after_conv1")
    rest = ContextSpec(1 / 4, (False, True, True, False)), ContextSpec(1 / 4, c5)
    source = built(small(backbone=replace(small().backbone, context=first, more_context=rest)))
    found = load_model(saved(source, PLUGINS, tmp_path / "x.pth"))
    assert isinstance(found, Detector)
    assert set(found.spec.backbone.contexts) == {first, *rest}
    picture = torch.rand(1, 3, 64, 64)
    for ours, theirs in zip(found.backbone.eval()(picture), source.backbone(picture), strict=True):
        assert torch.equal(ours, theirs)
    unsaid = load_model(saved(source, None, tmp_path / "y.pth"))
    assert {c.position for c in unsaid.spec.backbone.contexts} == {"after_conv2", "after1x1"}
    assert "taken as after the second convolution" in unsaid.provenance["note"]


def test_a_plain_balanced_pyramid_is_in_the_configuration_alone(tmp_path: Path) -> None:
    text = "neck = [dict(type='FPN', num_outs=5), dict(type='BFP', num_levels=5, refine_level=1)]"
    spec = load_model(saved(built(small()), text, tmp_path / "x.pth")).spec
    assert spec.balance == BalanceSpec(1, None)


def test_one_head_is_written_for_all_stages(tmp_path: Path) -> None:
    text = "bbox_head = dict(target_stds=[0.1, 0.1, 0.3, 0.3])"
    found = load_model(saved(built(small(cascade=CASCADE)), text, tmp_path / "x.pth"))
    assert found.spec.cascade.stds == ((0.1, 0.1, 0.3, 0.3),) * 3


def test_names_of_published_files() -> None:
    caffe = named_config("mask_rcnn_r50_caffe_fpn_1x_coco_bbox_mAP-0.38_20200504-b54ee18a.pth")
    assert (caffe.style, caffe.channels, caffe.std) == ("caffe", "bgr", (1.0, 1.0, 1.0))
    wide = named_config("mask-rcnn_x101-32x8d_fpn_1x_coco_20220630-b4a20c5e.pth")
    assert (wide.style, wide.channels, wide.std) == ("pytorch", "bgr", (57.375, 57.12, 58.395))
    assert named_config("mask_rcnn_r50_fpn_1x_coco.pth") == Config()


def test_options_of_convert_overrule_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = saved(built(CAFFE), None, tmp_path / "x.pth"), tmp_path / "y.safetensors"
    assert main(["convert", str(source), str(out)]) == 0
    assert "note: it does not say how images were prepared: taken as RGB" in capsys.readouterr().out
    (tmp_path / "old_config.py").write_text(VERSION_2)
    options = f"--config {tmp_path / 'old_config.py'} --channel-order rgb --image-size 96 160".split()
    assert main(["convert", str(source), str(out), *options]) == 0
    spec = load_model(out).spec
    assert spec.image_size == (160, 96)
    assert spec.backbone.style == "caffe"
    assert spec.image_mean == (103.53, 116.28, 123.675)
    assert main(["convert", str(source), str(out), "--config", str(tmp_path / "none.py")]) == 2
    other = saved(built(small()), "nms = dict(type='nms_match')", tmp_path / "other.pth")
    assert main(["convert", str(other), str(out)]) == 2
    assert main(["convert", str(other), str(out), "--config", str(tmp_path / "old_config.py")]) == 0


@pytest.mark.parametrize("name", ["x.pth", "mask_rcnn_r50_fpn_gn_ws-all_2x_coco.pth"])
def test_a_few_settings_do_not_replace_a_configuration(name: str, tmp_path: Path) -> None:
    whole = "model = dict(backbone=dict(depth=50, style='caffe'{}), test_cfg=dict(rcnn={}))"
    told = read_config("img_scale = (64, 48)\nbackbone = dict(frozen_stages=2)")
    source = built(CAFFE)
    conv = "" if "gn_ws" in name else ", conv_cfg=dict(type='ConvWS')"
    path = saved(source, whole.format(conv, "dict(score_thr=0.3)") if conv else None, tmp_path / name)
    found = read_model(LocalFile(path), None, told=told)
    assert "weight standardisation went into the weights" in found.provenance["note"]
    assert ("its own score threshold was 0.3" in found.provenance["note"]) == bool(conv)
    assert found.spec.image_size == (64, 48)
    assert found.spec.backbone.frozen_stages == 3
    assert found.spec.backbone.style == ("caffe" if conv else "pytorch")
    path = saved(source, whole.format("", "dict(nms=dict(type='nms_match'))"), tmp_path / name)
    with pytest.raises(GCNetError, match="nms of type nms_match"):
        read_model(LocalFile(path), None, told=told)


def test_images_of_a_teacher_and_a_student(tmp_path: Path) -> None:
    """Semi-supervised detectors have the preparation of an image inside that of several branches."""
    inner = "dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)"
    text = f"data_preprocessor = dict(type='MultiBranchDataPreprocessor', data_preprocessor={inner})"
    said = read_config(text)
    assert said is not None
    assert (said.channels, said.std) == ("bgr", (1.0, 1.0, 1.0))
    told = load_model(saved(built(CAFFE), "backbone = dict(style='caffe')", tmp_path / "x.pth")).provenance
    assert told["note"].endswith("mean and deviation")


def test_means_among_the_tensors(tmp_path: Path) -> None:
    """Some files of 3.x have the buffers of what prepares images."""
    buffers = {"data_preprocessor.mean": [1.0, 2.0, 3.0], "data_preprocessor.std": [4.0, 5.0, 6.0]}
    state = as_mmdet(built(small())) | {k: torch.tensor(v).view(3, 1, 1) for k, v in buffers.items()}
    torch.save({"state_dict": state, "meta": {"CLASSES": NAMES}}, tmp_path / "x.pth")
    found = load_model(tmp_path / "x.pth")
    assert (found.spec.image_mean, found.spec.image_std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert "prepared: taken as RGB, and residual blocks" in found.provenance["note"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backbone = dict(style='caffe')", "style"),
        ("bbox_roi_extractor = dict(finest_scale=28)", "reading of regions"),
    ],
)
def test_a_row_is_not_filled_with_what_computes_otherwise(text: str, words: str, tmp_path: Path) -> None:
    path = saved(built(small()), text, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match=f"says that it is no mask_rcnn_r50: other {words};"):
        load_model(path, row="mask_rcnn_r50")


def test_a_row_keeps_its_settings_of_a_test(tmp_path: Path) -> None:
    row = find("mask_rcnn_tiny")
    text = (
        "img_scale = (64, 48)\nbackbone = dict(norm_eval=True, frozen_stages=3)\nrcnn = dict(max_per_img=7)"
    )
    found = load_model(
        saved(built(row.spec), f"{text}\ntest_cfg = dict(rcnn=rcnn)", tmp_path / "x.pth"), row=row.name
    )
    assert found.spec == row.spec
    expected = "as mask_rcnn_tiny, and not as it says: image size, numbers of proposals and detections"
    assert found.provenance["note"] == expected
    told_by = found.provenance["told_by"]
    assert {told_by[name] for name in ("image_size", "norm", "frozen_stages")} == {"as mask_rcnn_tiny"}


@pytest.mark.parametrize("name", ["x_caffe.pth", "x_gn+ws.pth"])
def test_a_first_convolution_that_is_none(name: str, tmp_path: Path) -> None:
    state = as_mmdet(built(small())) | {"backbone.conv1.weight": torch.zeros(8)}
    torch.save({"state_dict": state, "meta": {"CLASSES": NAMES}}, tmp_path / name)
    with pytest.raises(GCNetError, match=r"backbone\.conv1\.weight is 8 there and 8x3x7x7 here"):
        load_model(tmp_path / name)
