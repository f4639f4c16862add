"""Options that change results: read where the models here have them, and named where not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_files import as_mmdet, as_version_1, built, small
from test_mmdet_places import said

from gcnet.errors import GCNetError
from gcnet.models.spec import ModelSpec
from gcnet.weights.load import load_model

HEADS = "roi_head=dict(bbox_roi_extractor=dict(type='SingleRoIExtractor'), mask_head=dict(num_convs=4), {})"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("neck=dict(activation='relu')", "activation=relu of its neck"),
        ("rpn_head=dict(target_means=[0.1, 0, 0, 0])", "target_means=[0.1, 0, 0, 0] of its rpn_head"),
        ("bbox_head=dict(target_means=[0.1, 0, 0, 0])", "target_means=[0.1, 0, 0, 0] of its bbox_head"),
        ("rpn_head=dict(anchor_strides=[4, 8], anchor_base_sizes=[8, 16])", "base sizes [8, 16]"),
        (HEADS.format("mask_roi_extractor=None"), "masks from the regions of boxes"),
        (HEADS.format("mask_roi_extractor=dict(finest_scale=112)"), "at other levels than others"),
        ("roi_layer=dict(type='RoIAlign', pool_mode='max')", "pool_mode=max of its roi_layer"),
        ("mask_head=dict(predictor_cfg=dict(type='NormedConv2d'))", "predictor_cfg of type NormedConv2d"),
        ("mask_head=dict(upsample_cfg=dict(type='bilinear'))", "upsample_cfg of type bilinear"),
        ("mask_head=dict(upsample_cfg=dict(scale_factor=4))", "scale_factor=4 of its upsample_cfg"),
        ("data_preprocessor=dict(type='Mine')", "data_preprocessor of type Mine"),
        ("test_cfg=dict(rpn=dict(nms_post=300, max_num=1000))", "(nms_post=300) than in all (1000)"),
        ("test_cfg=dict(rcnn=dict(nms=dict(type='nms', offset=1)))", "offset=1 of its nms"),
        ("bbox_roi_extractor=[dict(finest_scale=56), dict(finest_scale=28)]", "at other levels than others"),
        ("backbone=dict(norm_cfg=dict(type='IN', affine=True))", "norm_cfg of type IN"),
        ("backbone=dict(dcn=dict(type='DCNv4'))", "dcn of type DCNv4"),
        ("rpn_head=dict(loss_cls=dict(type='CrossEntropyLoss'))", "proposals scored by softmax"),
    ],
)
def test_options_that_change_results(model: str, words: str) -> None:
    assert words in "; ".join(said(f"model = dict({model})").unsupported or ())


@pytest.mark.parametrize(
    "model",
    [
        "rpn_head=dict(anchor_strides=[4, 8, 16, 32, 64], anchor_base_sizes=[4, 8, 16, 32, 64])",
        HEADS.format("mask_roi_extractor=dict(finest_scale=56)"),
        "roi_layer=dict(type='mmcv.ops.RoIAlign', pool_mode='avg')",
        "test_cfg=dict(rcnn=dict(nms=dict(type='mmcv.ops.nms', iou_threshold=0.5)))",
        "mask_head=dict(upsample_cfg=dict(type='deconv', scale_factor=2), predictor_cfg=dict(type='Conv'))",
        "test_cfg=dict(rpn=dict(nms_post=1000, max_num=1000))",
        "neck=[dict(type='mmdet.models.necks.fpn.FPN'), dict(type='mmdet.BFP')]",
        "bbox_head=dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True))",  # scored by softmax all the same
        "bbox_head=[dict(loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True)), dict()]",
    ],
)
def test_the_same_in_other_words(model: str) -> None:
    assert not said(f"model = dict({model})").unsupported


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "backbone=dict(type='ResNet', use_spatial_attention=True)",
            "use_spatial_attention=True of its backbone",
        ),
        ("bbox_roi_extractor=dict(gc_context=True)", "gc_context=True of its bbox_roi_extractor"),
        (
            "type='FasterRCNN', backbone=dict(), fusion=dict(type='BCFN')",
            "fusion={'type': 'BCFN'} of its model",
        ),
        ("bbox_head=[dict(), dict(nl_stages=(True, False))]", "nl_stages=[True, False] of its bbox_head"),
        ("test_cfg=dict(rcnn=dict(score_thr=0.05, expand=1.2))", "expand=1.2 of its rcnn"),
    ],
)
def test_options_that_upstream_has_not(model: str, words: str) -> None:
    """Somebody's own code reads them, and what it does then is not known."""
    assert said(f"model = dict({model})").unsupported == (words,)


def test_options_of_losses_and_of_another_class() -> None:
    assert not said("model = dict(bbox_head=dict(loss_iou=dict(), init_cfg=dict()))").unsupported
    assert not said("model = dict(type='SoftTeacher', detector=dict(backbone=dict()), mine=1)").unsupported
    mine = "backbone=dict(type='Mine', depths=3)"
    assert said(f"model = dict({mine})").unsupported == ("backbone of type Mine",)
    mine = "roi_layer=dict(type='Mine', pool_mode='max', output_channels=3)"
    assert said(f"model = dict({mine})").unsupported == ("roi_layer of type Mine",)


def test_levels_of_regions_of_each_stage() -> None:
    for extractor in ("dict(finest_scale=28)", "[dict(finest_scale=28), dict(finest_scale=28)]"):
        assert said(f"model = dict(bbox_roi_extractor={extractor})").finest_scale == 28


def test_a_balanced_pyramid_with_the_place_of_its_class() -> None:
    for kind in ("BFP", "mmdet.BFP", "mmdet.models.necks.bfp.BFP"):
        assert said(f"neck = [dict(type='FPN'), dict(type='{kind}', refine_level=1)]").balance_level == 1


def test_defaults_of_a_backbone_and_of_proposals() -> None:
    assert said("model = dict(backbone=dict(depth=50))").frozen_stages == 0
    assert said("rpn_head = dict(target_stds=[0.5, 0.5, 0.5, 0.5])").anchor_stds == (0.5,) * 4


@pytest.mark.parametrize(
    ("backbone", "norm"),
    [
        ("depth=50", "frozen_stats"),
        ("type='ResNet', norm_cfg=dict(type='SyncBN')", "frozen_stats"),
        ("norm_cfg=dict(type='SyncBN'), norm_eval=True", "frozen_stats"),
        ("norm_cfg=dict(type='SyncBN'), norm_eval=False", "sync"),
        ("type='ResNet', norm_eval=False", "batch"),
        ("style='caffe'", None),
    ],
)
def test_statistics_of_a_backbone(backbone: str, norm: str | None) -> None:
    """Upstream's ResNets keep theirs unless told otherwise, also if these are synchronised ones."""
    assert said(f"model = dict(backbone=dict({backbone}))").norm == norm


def test_loaders_that_are_unknown() -> None:
    known = ("LoadImageFromFile", "LoadAnnotations", "mmcv.LoadImageFromNDArray")
    noted = ("not done here, but in its test: LoadNumpyFromFile",)
    for kind, notes in (*dict.fromkeys(known).items(), ("LoadNumpyFromFile", noted)):
        assert said(f"test_pipeline = [dict(type='{kind}')]").notes == notes


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("points", [-1, 0, 2])
def test_points_in_a_cell_of_a_region(version: int, points: int, tmp_path: Path) -> None:
    """1.x read two in each direction, as ours does for its files, never as many as a cell takes."""
    state = as_mmdet(built(small()))
    text = f"bbox_roi_extractor = dict(roi_layer=dict(type='RoIAlign', sample_num={points}))"
    meta = {"CLASSES": small().class_names, "config": text}
    path = tmp_path / "x.pth"
    torch.save({"state_dict": as_version_1(state) if version == 1 else state, "meta": meta}, path)
    if version == 2 or points > 0:
        spec = load_model(path).spec
        assert isinstance(spec, ModelSpec)
        assert spec.roi.sampling == (max(points, 0) if version == 2 else 0)  # 0 is 2 in the convention of 1.x
    else:
        with pytest.raises(GCNetError, match="sampling_ratio=0 of its roi_layer"):
            load_model(path)
