"""Every model of the catalog: its spec survives JSON, it builds, and the small ones learn and predict."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gcnet.context import BottleneckTransform, GlobalContext, LinearTransform
from gcnet.models import postprocess, roi_heads
from gcnet.models.detector import Detector
from gcnet.models.heads import BoxHead
from gcnet.models.layers import DeformableConv2d
from gcnet.models.spec import BalanceSpec, CascadeSpec, ContextSpec, ModelSpec, ResNetSpec
from gcnet.ops import nms
from gcnet.types import Batch, Targets
from gcnet.weights.catalog import ROWS, find
from gcnet.weights.files import save_model
from gcnet.weights.load import load_model

RPN_LOSSES = {"loss_rpn_cls", "loss_rpn_box"}
STAGE_LOSSES = {"loss_cls", "loss_box", "loss_mask"}


def everything() -> ModelSpec:
    """A tiny model with all that the largest rows have: groups, deformable stages, blocks and a cascade."""
    tiny = find("mask_rcnn_tiny_gc4").spec
    backbone = replace(tiny.backbone, groups=4, group_width=16, deformable_stages=(False, True, True, True))
    rpn = replace(tiny.rpn, anchor_scale=2.0, anchors_inside=True, smooth_l1_beta=1 / 9)
    return replace(tiny, name="everything", backbone=backbone, rpn=rpn, cascade=CascadeSpec())


def four_convs() -> ModelSpec:
    """A tiny model with the heads and norms of the authors' "4conv1fc" rows, in the boxes of 2019."""
    tiny = find("mask_rcnn_tiny_gc4").spec
    roi = replace(tiny.roi, box_convs=4, box_fcs=1, norm="sync", smooth_l1_beta=1.0)
    return replace(tiny, name="four_convs", roi=roi, fpn_norm="sync", coordinates="inclusive")


def newer() -> ModelSpec:
    """A tiny model with what mmdetection has beyond the rows, as far as bottlenecks go."""
    tiny = find("mask_rcnn_tiny").spec
    c4 = (False, False, True, False)
    backbone = replace(
        tiny.backbone,
        deep_stem=True,
        avg_down=True,
        deformable_stages=c4,
        modulated=True,
        offset_groups=2,
        context=ContextSpec(ratio=1 / 4, position="after_conv2"),
        more_context=(ContextSpec(ratio=1 / 4, stages=c4), ContextSpec(1 / 8, c4, fusion=("scale",))),
    )
    rpn = replace(tiny.rpn, anchor_scale=(2.0, 3.0), anchor_strides=(2, 8, 16, 32, 64), stds=(0.5, 0.5, 1, 1))
    rpn = replace(rpn, convs=2)
    roi = replace(tiny.roi, class_agnostic_masks=True, class_agnostic=True, stds=(0.2, 0.2, 0.2, 0.2))
    return replace(
        tiny, name="newer", backbone=backbone, rpn=rpn, roi=roi, fpn_bottom_up=True, balance=BalanceSpec()
    )


def basic() -> ModelSpec:
    """One of basic blocks, each with its context."""
    tiny = find("mask_rcnn_tiny_gc4").spec
    return replace(
        tiny,
        name="basic",
        backbone=replace(tiny.backbone, block="basic", base_channels=32),
        balance=BalanceSpec(refine="conv"),
    )


SPECS = {row.name: row.spec for row in ROWS if isinstance(row.spec.backbone, ResNetSpec)}
ROW_NAMES = list(SPECS)
SPECS |= {"everything": everything(), "four_convs": four_convs(), "newer": newer(), "basic": basic()}
# Cascades train on anchors inside the image alone, and the images here are small.
_cascade = SPECS["cascade_rcnn_tiny_gc4"]
SPECS["cascade_rcnn_tiny_gc4"] = replace(_cascade, rpn=replace(_cascade.rpn, anchor_scale=2.0))
TINY = [*(name for name in SPECS if "tiny" in name), "everything", "four_convs", "newer", "basic"]


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[np.ndarray]:
    return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])]


def scene() -> tuple[Batch, list[Targets]]:
    """Two pictures of different sizes, one with two objects and one with none."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=generator)
    batch = Batch(images, [(96, 100), (64, 128)], [(48, 50), (32, 64)], ["a", "b"])
    targets = [
        Targets(
            torch.tensor([[11.0, 7, 60, 35], [33, 22, 90, 82]]),
            torch.tensor([0, 2]),
            [rectangle(11, 7, 60, 35), rectangle(33, 22, 90, 82)],
        ),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), []),
    ]
    return batch, targets


def build(name: str, classes: int = 3) -> Detector:
    torch.manual_seed(0)
    return Detector(replace(SPECS[name], class_names=tuple(f"class {i}" for i in range(classes))))


@pytest.mark.parametrize("name", [*SPECS, "mask_rcnn_convnext_tiny_gc4"])
def test_spec_survives_json(name: str) -> None:
    spec = SPECS[name] if name in SPECS else find(name).spec
    assert ModelSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec


def test_nested_tuples_survive_json() -> None:
    cascade = CascadeSpec(ious=(0.4,), loss_weights=(2.0,), stds=((0.3, 0.2, 0.1, 0.4),))
    spec = replace(everything(), cascade=cascade)
    again = ModelSpec.from_dict(json.loads(json.dumps(asdict(spec))))
    assert again == spec
    assert hash(again) == hash(spec)  # no list is left anywhere


def test_spec_from_before_the_cascade_is_read() -> None:
    values = asdict(find("mask_rcnn_r50").spec)
    del values["cascade"], values["backbone"]["groups"], values["backbone"]["deformable_stages"]
    del values["rpn"]["anchors_inside"]
    assert ModelSpec.from_dict(values) == find("mask_rcnn_r50").spec


def test_spec_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="ResNetSpec has no field"):
        ModelSpec.from_dict({"name": "x", "class_names": ["a"], "backbone": {"depth": 50}})


def test_a_box_head_has_one_or_two_linear_layers() -> None:
    with pytest.raises(ValueError, match=r"spec\.roi\.box_fcs is 3, not one of 1, 2"):
        ModelSpec.from_dict({"name": "x", "class_names": ["a"], "roi": {"box_fcs": 3}})


@pytest.mark.parametrize("name", ROW_NAMES)
def test_builds_with_blocks_where_they_belong(name: str) -> None:
    spec = find(name).spec
    with torch.device("meta"):
        detector = Detector(spec)
    heads = [module for module in detector.modules() if isinstance(module, BoxHead)]
    assert [head.num_classes for head in heads] == [80] * (1 if spec.cascade is None else 3)
    found = {path for path, module in detector.named_modules() if isinstance(module, GlobalContext)}
    context = spec.backbone.context
    expected = {
        f"backbone.layer{stage + 1}.{index}.context"
        for stage, count in enumerate(spec.backbone.blocks)
        for index in range(count)
        if context is not None and context.stages[stage]
    }
    assert found == expected
    assert bool(found) == ("gc" in name)
    moved = [path for path, module in detector.named_modules() if isinstance(module, DeformableConv2d)]
    assert len(moved) == ((4 + 23 + 3) if "dcn" in name else 0)  # each block of c3, c4 and c5
    assert all(path.endswith(".conv2") for path in moved)


@pytest.mark.parametrize("name", TINY)
def test_losses_reach_every_trained_parameter(name: str) -> None:
    detector = build(name).train()
    wake(detector)
    batch, targets = scene()
    losses = detector.losses(batch, targets)
    stages = [""] if detector.spec.cascade is None else ["s0.", "s1.", "s2."]
    per_stage = STAGE_LOSSES if detector.spec.roi.masks else STAGE_LOSSES - {"loss_mask"}
    assert set(losses) == RPN_LOSSES | {stage + loss for stage in stages for loss in per_stage}
    assert all(loss.isfinite() and loss >= 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for path, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, path
            assert parameter.grad.isfinite().all(), path
            assert parameter.grad.abs().sum() > 0 or path.endswith("pool.bias"), path


def wake(detector: Detector) -> None:
    """No parameter at zero: zero-initialised layers would stop gradients to those before them."""
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.fill_(1)
            if isinstance(module, BottleneckTransform):
                nn.init.normal_(module.expand.weight, std=0.1)
            if isinstance(module, LinearTransform):
                nn.init.normal_(module.linear.weight, std=0.1)


@pytest.mark.parametrize("name", TINY)
def test_pictures_without_objects_train_too(name: str) -> None:
    detector = build(name).train()
    batch, targets = scene()
    losses = detector.losses(batch, [targets[1], targets[1]])
    assert all((loss == 0) == name.endswith(("box", "mask")) for name, loss in losses.items())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)  # as DDP demands


@pytest.mark.parametrize("name", TINY)
def test_predictions_are_well_formed(name: str) -> None:
    detector = build(name).eval()
    batch, _ = scene()
    for index, found in enumerate(detector.predict(batch, score_threshold=0.0)):
        height, width = batch.original_sizes[index]
        assert 0 < len(found) <= detector.spec.roi.detections
        assert found.image_size == (height, width)
        if detector.spec.roi.masks:
            assert found.masks.shape == (len(found), height, width)
        assert (found.scores.diff() <= 0).all()
        assert found.labels.min() >= 0
        assert found.labels.max() < 3
        assert (found.boxes >= 0).all()
        assert found.boxes[:, 2].max() <= width + 1e-3
        assert found.boxes[:, 3].max() <= height + 1e-3


def reduced(spec: ModelSpec) -> ModelSpec:
    """A model of the same parts, small enough to run."""
    context = ContextSpec(ratio=1 / 4) if spec.backbone.context else None
    backbone = replace(
        spec.backbone, blocks=(1, 1, 1, 1), stem_channels=16, base_channels=16, context=context
    )
    rpn = replace(spec.rpn, anchor_scale=2.0, pre_nms_test=200, proposals_test=100)
    roi = replace(spec.roi, box_channels=32, mask_channels=16, mask_convs=1, finest_scale=14.0)
    return replace(
        spec, name="", class_names=("a", "b", "c"), backbone=backbone, fpn_channels=32, rpn=rpn, roi=roi
    )


# The rows that differ in more than the number of their layers, and a name of each.
DISTINCT = {reduced(spec): name for name, spec in reversed(SPECS.items())}


ALSO_AS_ON_A_GPU = ("everything", "newer", "cascade_mask_rcnn_x101_syncbn_dcn_gc16", "mask_rcnn_tiny_gc16")
WAYS = [
    pytest.param(spec, gpu, id=f"{name}, as on a GPU" if gpu else name)
    for spec, name in DISTINCT.items()
    for gpu in (False, True)
    if not gpu or name in ALSO_AS_ON_A_GPU
]


@pytest.mark.parametrize(("spec", "gpu"), WAYS)
def test_static_shapes_change_no_detection(
    spec: ModelSpec, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as files for other runtimes are computed nor as on a GPU, with sizes in tensors."""
    torch.manual_seed(0)
    detector = Detector(spec).eval()
    wake(detector)
    for head in detector.roi_heads.box_stages:
        nn.init.normal_(head.cls.weight, std=0.5)
    batch, _ = scene()
    found = detector.predict(batch, score_threshold=0.0)
    scores = torch.cat([one.scores for one in found]).sort().values[20:-20]
    widest = int(scores.diff().argmax())  # a threshold that rounding does not matter to
    threshold = float(scores[widest : widest + 2].mean())
    dynamic = detector.predict(batch, score_threshold=threshold)
    detector.shapes = "static"
    if gpu:
        for module in (nms, postprocess, roi_heads):
            monkeypatch.setattr(module, "on_gpu", lambda tensor: True)
        monkeypatch.setattr(postprocess, "FIRST_CANDIDATES", 20)  # too few for one of the images
        corners = [(width, height) * 2 for height, width in batch.image_sizes]
        monkeypatch.setattr(Batch, "extents", torch.tensor(corners, dtype=torch.float32))
    static = detector.predict(batch, score_threshold=threshold)
    assert 20 <= sum(map(len, dynamic)) <= len(found[0]) + len(found[1]) - 20
    for one, other in zip(dynamic, static, strict=True):
        assert len(one) == len(other)
        torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
        nearest = (one.boxes[:, None] - other.boxes).abs().amax(2) + (one.labels[:, None] != other.labels) * 9
        order = nearest.argmin(1)  # equal scores may come in another order
        assert len(order.unique()) == len(one)
        torch.testing.assert_close(one.boxes, other.boxes[order], atol=1e-3, rtol=0)
        if one.mask_probs is not None:
            torch.testing.assert_close(one.mask_probs, other.mask_probs[order], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["everything", "newer", "basic"])
def test_learns_saves_and_loads(name: str, tmp_path: Path) -> None:
    detector = build(name).train()
    batch, targets = scene()
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.01)
    seen = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = torch.stack(list(detector.losses(batch, targets).values())).sum()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.95 * seen[0]
    assert all(p.any() for name, p in detector.named_parameters() if name.endswith("offset.weight"))

    save_model(detector, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == detector.spec
    pairs = zip(
        detector.eval().predict(batch, score_threshold=0.0),
        again.eval().predict(batch, score_threshold=0.0),
        strict=True,
    )
    for ours, theirs in pairs:
        assert torch.equal(ours.boxes, theirs.boxes)
        assert torch.equal(ours.mask_probs, theirs.mask_probs)


@pytest.mark.parametrize("name", ["newer", "basic"])
def test_optimised_copies_see_the_same(name: str) -> None:
    detector = build(name).eval()
    wake(detector)
    batch, _ = scene()
    with torch.no_grad():
        for fast, plain in zip(detector.optimize().features(batch), detector.features(batch), strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


def test_positions_differ_once_blocks_say_something() -> None:
    outputs = []
    for position in ("after1x1", "after_add"):
        spec = find("mask_rcnn_tiny_gc4").spec
        backbone = replace(spec.backbone, context=ContextSpec(ratio=0.25, position=position))
        torch.manual_seed(0)
        detector = Detector(replace(spec, backbone=backbone)).eval()
        torch.manual_seed(1)
        wake(detector)
        outputs.append(detector.backbone(torch.ones(1, 3, 64, 64))[-1])
    assert not torch.allclose(*outputs)
