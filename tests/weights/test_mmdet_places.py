"""What a run used is read, whatever else in its configuration has the same names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from foreign_files import CASCADE, built, saved, small

from gcnet.errors import GCNetError
from gcnet.models.spec import ModelSpec
from gcnet.weights.load import load_model
from gcnet.weights.mmdet_config import Config, read_config


def said(text: str) -> Config:
    config = read_config(text)
    assert config is not None
    return config


OPTIMIZER = "optimizer = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=.1)}))\n"
MODEL = "model = dict(backbone=dict(type='ResNet', style='caffe', frozen_stages=3))\n"
DETECTOR = "dict(backbone=dict(type='ResNet', style='caffe'))"


@pytest.mark.parametrize(
    "text",
    [
        OPTIMIZER + MODEL,
        MODEL + OPTIMIZER,
        f"detector = dict(backbone=dict())\nmodel = dict(type='SoftTeacher', detector={DETECTOR})",
        f"model = dict(teacher={DETECTOR}, student={DETECTOR})",
    ],
    ids=["optimizer first", "optimizer last", "another detector", "teacher and student"],
)
def test_parts_are_those_of_the_model(text: str) -> None:
    assert said(text).style == "caffe"
    assert not said(text).unsupported


def test_a_wrapper_has_settings_of_its_own() -> None:
    detector = "dict(backbone=dict(), test_cfg=dict(rcnn=dict(max_per_img=7)))"
    wrapped = f"model = dict(type='SoftTeacher', model={detector}, test_cfg=dict(inference_on='student'))"
    assert said(wrapped).detections == 7


def test_a_wrapper_that_is_unknown() -> None:
    assert said(f"model = dict(type='Mine', detector={DETECTOR})").unsupported == ("wrapper of type Mine",)


def test_rates_of_an_optimizer_are_no_heads(tmp_path: Path) -> None:
    text = "optimizer = dict(custom_keys={'bbox_head': dict()})\nmodel = dict(roi_head=dict(bbox_head=["
    for count in (3, 2):
        heads = ", ".join(["dict(target_stds=[0.2, 0.2, 0.4, 0.4])"] * count)
        path = saved(built(small(cascade=CASCADE)), f"{text}{heads}]))", tmp_path / "x.pth")
        if count == 3:
            spec = load_model(path).spec
            assert isinstance(spec, ModelSpec)
            assert spec.cascade is not None
            assert spec.cascade.stds == ((0.2, 0.2, 0.4, 0.4),) * 3
        else:
            with pytest.raises(GCNetError, match="2 box heads are written for 3 stages"):
                load_model(path)


SIZE = "[dict(type='Resize', scale=(640, 512), keep_ratio=True)]"
TOP = "test_pipeline = [dict(type='Resize', scale=(99, 99), keep_ratio=True)]\n"


@pytest.mark.parametrize(
    "text",
    [
        f"data = dict(test=dict(pipeline={SIZE}), train=dict(pipeline=[dict(scale=(9, 9))]))",
        f"data = dict(test=[dict(pipeline={SIZE}), dict(pipeline={SIZE})])",
        f"test_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline={SIZE})))",
        f"test_dataloader = dict(dataset=dict(datasets=[dict(pipeline={SIZE})]))\n"
        "data = dict(test=dict(pipeline=[dict(type='Resize', scale=(9, 9))]))",
    ],
    ids=["2.x", "a list", "a wrapper", "3.x"],
)
def test_images_are_those_of_the_test(text: str) -> None:
    assert said(TOP + text).image_size == (640, 512)
    assert said(TOP).image_size == (99, 99)


def test_data_sets_that_differ() -> None:
    text = f"data = dict(test=[dict(pipeline={SIZE}), dict(pipeline=[dict(img_scale=(9, 9))])])"
    assert said(text).unsupported == ("test data sets whose images are prepared in different ways",)


def test_a_preprocessor_of_the_model_goes_before_another() -> None:
    caffe = "dict(mean=[103.5, 116.3, 123.7], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)"
    other = "data_preprocessor = dict(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=True)\n"
    read = said(f"{other}model = dict(data_preprocessor={caffe})")
    assert (read.mean, read.channels) == ((103.5, 116.3, 123.7), "bgr")
    assert said(other + MODEL).mean == (1.0, 2.0, 3.0)
    inline = "[dict(type='Normalize', mean=[0, 0, 0], std=[255.0, 255.0, 255.0], to_rgb=False)]"
    read = said(
        f"img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 1, 1])\ndata = dict(test=dict(pipeline={inline}))"
    )
    assert (read.mean, read.std, read.channels) == ((0.0,) * 3, (255.0,) * 3, "bgr")


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(train_cfg=dict(rpn_proposal=dict(nms=dict(type='giou_nms'))))",
        "model = dict()\ntta_model = dict(tta_cfg=dict(nms=dict(type='soft_nms')))",
        "train_cfg = dict(rpn_proposal=dict(nms=dict(type='giou_nms')))",
    ],
)
def test_settings_of_trainings_and_views_are_passed_over(text: str) -> None:
    assert not said(text).unsupported


def test_settings_of_a_test() -> None:
    test = "dict(rcnn=dict(nms=dict(type='nms', iou_thr=0.3), max_per_img=7), rpn=dict(nms_pre=5))"
    for text in (f"test_cfg = {test}\nmodel = dict(type='FasterRCNN')", f"model = dict(test_cfg={test})"):
        assert replace(said(text), unsupported=None, standardised=None) == Config(
            nms_threshold=0.3, detections=7, pre_nms=5
        )


def test_data_sets_that_are_computed() -> None:
    for text in ("test_dataloader = deepcopy(val_dataloader)", "data = dict(test=build())"):
        assert "computed" in " ".join(said(TOP + text).unsupported or ())


def test_a_model_that_is_computed() -> None:
    assert said("from mine import build\nmodel = build('x')").unsupported == (
        "a model that is computed, which is not done here",
    )


def with_steps(steps: str, processor: str = "") -> Config:
    """What is said of a whole configuration of 3.x with these steps of its test."""
    model = f"model = dict(backbone=dict(type='ResNet'), data_preprocessor=dict({processor}))\n"
    return said(
        f"{model}test_dataloader = dict(dataset=dict(pipeline=[{steps}, dict(type='PackDetInputs')]))"
    )


USUAL = "mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=True, pad_size_divisor=32"
FIT = "dict(type='Resize', scale=(640, 512), keep_ratio=True)"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("dict(type='LoadImageFromFile')", "images are not resized to fit in a size"),
        ("dict(type='MultiScaleFlipAug', img_scale=(9, 9), transforms=[])", "images are not resized"),
        ("dict(type='Resize', scale_factor=1.0, keep_ratio=True)", "images are not resized"),
        ("dict(type='Resize', scale=(640, 640))", "stretched"),
        ("dict(type='FixShapeResize', width=640, height=640, keep_ratio=True)", "of its FixShapeResize"),
        (f"{FIT}, dict(type='Normalize', mean=[1, 2, 3], std=[1, 1, 1])", "images are normalised twice"),
        (f"{FIT}, dict(type='Pad', size=(640, 640))", "size=[640, 640] of its Pad"),
        (f"{FIT}, dict(type='Pad', pad_val=dict(img=114))", "pad_val={'img': 114} of its Pad"),
        (f"{FIT}, dict(type='Pad', size_divisor=64)", "other multiples than of 32"),
        (f"{FIT}, dict(type='Pad', size_divisor=[32, 32])", "other multiples than of 32"),
    ],
)
def test_steps_that_no_model_here_takes(steps: str, words: str) -> None:
    assert words in "; ".join(with_steps(steps, USUAL).unsupported or ())


def test_padding_with_zeros_in_other_words() -> None:
    for value in ("0", "dict(img=0)", "dict(img=0, seg=255)"):
        assert not with_steps(f"{FIT}, dict(type='Pad', size_divisor=32, pad_val={value})", USUAL).unsupported


def test_images_that_are_not_normalised_or_padded() -> None:
    read = with_steps(FIT, USUAL)
    assert (read.mean, read.channels, read.notes, read.unsupported) == ((1.0, 2.0, 3.0), "rgb", (), ())
    read = with_steps(FIT, "bgr_to_rgb=True")
    assert (read.mean, read.std, read.channels) == ((0.0,) * 3, (1.0,) * 3, "rgb")
    assert read.notes is not None
    assert "does not normalise" in read.notes[0]
    assert "padded to multiples of 32 pixels" in read.notes[1]
    named = "img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 1, 1])\n"  # a left-over, but where no test is told
    old = "model = dict(backbone=dict())\ndata = dict(test=dict(pipeline=[dict(type='Collect')]))"
    assert said(named + old).mean == (1.0, 2.0, 3.0)
    assert said(named + old.replace("dict()", "dict(depth=50)")).mean == (0.0,) * 3


def test_several_sizes_and_one_number() -> None:
    read = with_steps(
        "dict(type='MultiScaleFlipAug', img_scale=[(9, 8), (19, 18)], transforms=[dict(type='Resize')])"
    )
    assert read.image_size == (9, 8)
    assert "several sizes or flips" in (read.notes or ("",))[-1]
    assert with_steps("dict(type='Resize', scale=640, keep_ratio=True)").image_size == (640, 640)


def test_the_order_in_which_channels_are_loaded() -> None:
    load = "dict(type='LoadImageFromFile', channel_order='rgb')"
    assert with_steps(f"{load}, {FIT}", USUAL).channels == "bgr"
    assert (
        with_steps(f"{load}, {FIT}", USUAL.replace("bgr_to_rgb=True", "bgr_to_rgb=False")).channels == "rgb"
    )


def test_a_preprocessor_before_the_release() -> None:
    text = "model = dict(preprocess_cfg=dict(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], to_rgb=True))"
    assert (said(text).mean, said(text).channels) == ((1.0, 2.0, 3.0), "rgb")


def test_data_sets_of_mmdetection_0_6() -> None:
    text = """
model = dict(backbone=dict(type='ResNet'))
img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
data = dict(train=dict(img_scale=(9, 9)), test=dict(
    img_scale=(1000, 600), img_norm_cfg=img_norm_cfg, size_divisor=32, flip_ratio=0, test_mode=True))
"""
    read = said(text)
    assert (read.image_size, read.mean, read.channels) == ((1000, 600), (1.0, 2.0, 3.0), "bgr")
    assert (read.notes, read.unsupported) == ((), ())
    stretched = said(
        text.replace("flip_ratio=0", "resize_keep_ratio=False").replace("divisor=32", "divisor=64")
    )
    assert [words.partition(" to ")[0] for words in stretched.unsupported or ()] == [
        "images are padded",
        "images are stretched",
    ]
