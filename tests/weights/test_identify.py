"""Which model a checkpoint holds, from the least that says it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import CASCADE, NAMES, as_mmdet, as_version_1, built, equal, small
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.detector import Detector
from gcnet.models.spec import AggregateSpec, BalanceSpec, ContextSpec, ModelSpec, Norm, ResNetSpec, RoISpec
from gcnet.weights import identify as module
from gcnet.weights.catalog import COCO_CLASSES, ROWS, Weights, find
from gcnet.weights.checkpoints import Checkpoint
from gcnet.weights.files import fill_weights
from gcnet.weights.identify import Identified
from gcnet.weights.identify import identify as identify_tensors
from gcnet.weights.mmdet_keys import mmdet_key, modernise, our_keys

C4, C5 = (False, False, True, False), (False, False, False, True)
RESNETS = [row for row in ROWS if isinstance(row.spec.backbone, ResNetSpec)]  # mmdetection has no others


def shapes(name: str) -> dict[str, Tensor]:
    """A row's tensors without their values; batch counts are left out."""
    return dict(cached_shapes(name))


@cache
def cached_shapes(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = Detector(find(name).spec).state_dict()
    return {mmdet_key(key): t for key, t in state.items() if not key.endswith("num_batches_tracked")}


def identify(path: Path, checkpoint: Checkpoint, **options: Any) -> Identified:
    """What a checkpoint holds, whichever version wrote it."""
    return identify_tensors(path, checkpoint, modernise(checkpoint.tensors), **options)


@pytest.fixture
def file(tmp_path: Path):
    """An empty file of a name."""

    def make(name: str) -> Path:
        path = tmp_path / name
        path.touch()
        return path

    return make


NORMS: dict[Norm | None, str] = {
    "frozen_stats": "norm_eval=True",
    "batch": "norm_cfg=dict(type='BN')\nnorm_eval=False",
    "sync": "norm_cfg=dict(type='SyncBN')",
}


@pytest.mark.parametrize("row", RESNETS, ids=lambda row: row.name)
def test_every_row_by_its_shapes_and_its_name_or_a_configuration(row, file) -> None:
    for name in (row.name, *row.upstream):
        found = identify(file(f"{name}_20200515-187da160.pth"), Checkpoint(shapes(row.name)))
        assert found == Identified(row.spec, None)
    config = NORMS[row.spec.backbone.norm]
    assert identify(file("epoch_12.pth"), Checkpoint(shapes(row.name), config=config)).spec.name == row.name


def test_without_a_hint_the_norm_is_taken_as_frozen(file) -> None:
    found = identify(file("epoch_12.pth"), Checkpoint(shapes("mask_rcnn_r50_syncbn_gc16")))
    assert found.spec.name == "mask_rcnn_r50_gc16"
    assert found.note is not None
    assert "taken as frozen" in found.note


@pytest.mark.parametrize("norm", ["frozen_stats", "batch", "sync"])
def test_the_only_row_of_a_structure_has_another_norm_than_its_file(norm: str, file) -> None:
    """There are ResNets of 101 layers without blocks as rows with SyncBN alone, and Faster R-CNNs without."""
    for name, own in (("mask_rcnn_r101_syncbn", "sync"), ("faster_rcnn_r50", "frozen_stats")):
        found = identify(file("epoch_12.pth"), Checkpoint(shapes(name), config=NORMS[norm]))
        assert (found.spec.backbone.norm, found.told_by["norm"]) == (norm, "configuration")
        assert found.spec.name == (name if norm == own else "epoch_12")
    unsaid = identify(file("epoch_12.pth"), Checkpoint(shapes("mask_rcnn_x101_syncbn")))
    assert (unsaid.spec.backbone.norm, unsaid.told_by["norm"]) == ("frozen_stats", "assumed")


@pytest.mark.parametrize(("count", "row"), [(0, "mask_rcnn_r50_gc4"), (87960, "mask_rcnn_r50_syncbn_gc4")])
def test_trained_norms_have_counted_batches(count: int, row: str, file) -> None:
    tensors = shapes(row)
    tensors["backbone.layer1.0.bn1.num_batches_tracked"] = torch.tensor(5)  # frozen in all rows
    tensors["backbone.layer3.0.bn1.num_batches_tracked"] = torch.tensor(count)
    found = identify(file("epoch_12.pth"), Checkpoint(tensors))
    assert (found.spec.name, found.note) == (row, None)


def test_a_published_file_under_another_name(file, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"").hexdigest()[:8]
    row = replace(find("mask_rcnn_r50_syncbn_gc16"), weights=Weights("http://x/y-z.pth", digest))
    monkeypatch.setattr(module, "ROWS", (find("mask_rcnn_r50_gc16"), row))
    found = identify(file("mask_rcnn_r50_gc16.pth"), Checkpoint(shapes(row.name)), digest=digest + "01")
    assert found == Identified(row.spec, None)


def test_a_configuration_says_the_norm_before_a_word_in_the_name(file) -> None:
    tensors, path = shapes("mask_rcnn_r50_gc4"), file("before_syncbn.pth")
    found = identify(path, Checkpoint(tensors, config="norm_eval=True"))
    assert (found.spec.name, found.told_by["norm"]) == ("mask_rcnn_r50_gc4", "configuration")
    found = identify(path, Checkpoint(tensors))
    assert (found.spec.name, found.told_by["norm"]) == ("mask_rcnn_r50_syncbn_gc4", "name")


def test_shapes_win_over_a_name(file) -> None:
    checkpoint = Checkpoint(shapes("mask_rcnn_x101_syncbn_gc4"), config=NORMS["sync"])
    found = identify(file("mask_rcnn_r101_gc16.pth"), checkpoint)
    assert found.spec.name == "mask_rcnn_x101_syncbn_gc4"
    assert found.note == "it is named like mask_rcnn_r101_gc16, but holds another model"


def test_a_name_within_a_longer_one(file) -> None:
    """ "mask_rcnn_r50_gc16" begins with a row's name, and a cascade's name ends with one."""
    found = identify(file("my_mask_rcnn_r50_gc16_run3.pth"), Checkpoint(shapes("mask_rcnn_r50_gc16")))
    assert (found.spec.name, found.note) == ("mask_rcnn_r50_gc16", None)
    name = "cascade_mask_rcnn_x101_syncbn_gc4"
    assert identify(file(f"{name}.pth"), Checkpoint(shapes(name))).note is None


SPECS = [
    small(),
    small(cascade=CASCADE),
    small(fpn_norm="sync", roi=RoISpec(4, 1, 24, mask_channels=8, mask_convs=2, norm="sync")),
    *(
        small(backbone=replace(small().backbone, **changes))
        for changes in (
            {"context": None},
            {"groups": 4, "group_width": 16},
            {"blocks": (2, 1, 3, 1), "stem_channels": 16},
            {"deformable_stages": (False, False, True, True)},
            {"context": ContextSpec(1 / 4, (False, False, True, True), pooling="average")},
            {"context": ContextSpec(1 / 4, (True, True, True, True), fusion=("add", "scale"))},
            {"context": ContextSpec(1 / 2, fusion=("scale",))},
            {"context": ContextSpec(1 / 3)},
            {"context": ContextSpec(block="nl", stages=(False, False, True, False))},
            {"blocks": (2, 1, 3, 2), "context": ContextSpec(1 / 4, C4, only=((), (), (2,), ()))},
            {"context": ContextSpec(1 / 4, C4), "more_context": (ContextSpec(1 / 8, C5, fusion=("scale",)),)},
            {"context": ContextSpec(1 / 4), "more_context": (ContextSpec(1 / 8, C4, pooling="average"),)},
            {"context": ContextSpec(1 / 4, position="after_conv2")},
            {"deformable_stages": C4, "modulated": True},
            {"deformable_stages": C4, "modulated": True, "offset_groups": 4},
            {"deformable_stages": C4, "offset_groups": 2},
            {"block": "basic", "context": ContextSpec(1 / 4)},
            {"deep_stem": True},
            {"deep_stem": True, "avg_down": True, "groups": 2, "group_width": 8},
            {"deep_stem": True, "avg_down": True, "scales": 4, "group_width": 32},
            {"scales": 3, "group_width": 27, "base_channels": 12, "deformable_stages": C4, "modulated": True},
            {"widths": (8, 16, 24, 40), "group_width": 8, "base_channels": 64},
            {"widths": (8, 16, 32, 48), "group_width": 16, "base_channels": 64, "deformable_stages": C4},
        )
    ),
    small(fpn_bottom_up=True),
    small(balance=BalanceSpec()),
    small(balance=BalanceSpec(refine="conv"), fpn_bottom_up=True),
    small(roi=replace(small().roi, class_agnostic_masks=True)),
    small(roi=replace(small().roi, aggregate=AggregateSpec(5))),
    small(roi=replace(small().roi, aggregate=AggregateSpec(3), masks=False), cascade=CASCADE),
    small(cascade=replace(CASCADE, ious=(0.5, 0.6), loss_weights=(1.0, 0.5), stds=CASCADE.stds[:2])),
    small(
        backbone=replace(small().backbone, base_channels=32, stem_channels=32, norm="group32"),
        fpn_norm="group32",
        fpn_channels=32,
        roi=RoISpec(4, 1, 24, mask_channels=32, mask_convs=2, norm="group32"),
    ),
]


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        *((spec, 2) for spec in SPECS),
        *((spec, 1) for n, spec in enumerate(SPECS) if spec.balance or n % 4 == 0),
    ],
)
def test_models_that_are_in_no_catalog(spec: ModelSpec, version: int, file) -> None:
    source = built(spec)
    state = as_version_1(as_mmdet(source)) if version == 1 else as_mmdet(source)
    found = identify(file("mine.pth"), Checkpoint(state, class_names=NAMES))
    assert found.spec.coordinates == ("inclusive" if version == 1 else "continuous")
    assert (found.spec.name, found.spec.class_names) == ("mine", NAMES)
    assert found.spec.roi.aggregate == spec.roi.aggregate
    same = {"backbone", "fpn_channels", "fpn_norm", "fpn_bottom_up", "balance", "cascade"}
    assert all(getattr(found.spec, name) == getattr(spec, name) for name in same)
    read = Detector(found.spec)
    fill_weights(read, our_keys(found.converted(modernise(state)), read.state_dict()), source="x")
    assert equal(read, source)


def test_class_names(file) -> None:
    path, state = file("mine.pth"), as_mmdet(built(small()))
    given = identify(path, Checkpoint(state, class_names=NAMES), class_names=["a", "b", "c"])
    assert given.spec.class_names == ("a", "b", "c")
    with pytest.raises(
        GCNetError, match=r"mine\.pth knows 3 classes but does not name them.*convert .*--class-names"
    ):
        identify(path, Checkpoint(state))
    with pytest.raises(GCNetError, match=r"knows 3 classes but names 80.*--class-names"):
        identify(path, Checkpoint(state, class_names=COCO_CLASSES))
    with pytest.raises(GCNetError, match=r"knows 80 classes but names 3.*--class-names"):
        identify(path, Checkpoint(shapes("mask_rcnn_r50"), class_names=NAMES))
    with pytest.raises(GCNetError, match="knows 3 classes, but 2 class names were given"):
        identify(path, Checkpoint(state), class_names=["a", "b"])


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        (["backbone.layer1.0.conv1.weight", "neck.lateral_convs.0.conv.weight", "bbox_head.retina_cls.bias"],
         "rpn_head"),
        (["backbone.layer1.0.conv1.weight", "backbone.layer1.0.conv1.weight"], "neck.lateral_convs"),
        (["conv1.weight", "fc.weight"], "backbone"),
        (["backbone.layer1.0.conv1.weight", "neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight",
          "roi_head.bbox_head.fc_cls.weight"], "1 whole stages"),
        (["backbone.layer1.0.conv1.weight", "neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight",
          "roi_head.mask_head.convs.0.conv.weight"], "bbox_head"),
    ],
    ids=["one stage", "a backbone", "a classifier", "only the last layer of the box head", "no box head"],
)  # fmt: skip
def test_other_models_are_named_in_one_line(names: list[str], lacking: str, file) -> None:
    tensors = {name: torch.zeros(8, 8, 1, 1) for name in names}
    with pytest.raises(GCNetError, match="holds another kind of model") as raised:
        identify(file("x.pth"), Checkpoint(tensors))
    assert lacking in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_configuration_names_what_has_no_place_here(file) -> None:
    """The class of a part, before tensors that are missing are."""
    for tensors in ({}, {"backbone.layer1.0.convs.0.weight": torch.zeros(4, 4, 3, 3)}):
        config = "model = dict(backbone=dict(type='ResNeSt'), rpn_head=dict(type='GARPNHead'))"
        with pytest.raises(GCNetError, match="backbone of type ResNeSt; rpn_head of type GARPNHead"):
            identify(file("x.pth"), Checkpoint(tensors, config=config))


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("backbone.conv1.weight", (8, 4, 7, 7), "images of 4 channels and not 3"),
        ("backbone.conv1.weight", (8, 3, 3, 3), "a RegNet whose blocks have another width inside"),
        ("roi_head.mask_head.upsample.weight", (8, 8, 4, 4), "masks that are enlarged 4 times and not twice"),
        ("roi_head.mask_head.conv_logits.weight", (80, 8, 1, 1), "masks of 80 classes and boxes of 3"),
    ],
)
def test_shapes_that_no_model_here_has(name: str, shape: tuple[int, ...], words: str, file) -> None:
    state = as_mmdet(built(small())) | {name: torch.zeros(shape)}
    with pytest.raises(GCNetError, match=words):
        identify(file("x.pth"), Checkpoint(state, class_names=NAMES))


def test_stages_of_a_cascade_are_alike(file) -> None:
    state = as_mmdet(built(small(cascade=CASCADE)))
    del state["roi_head.bbox_head.1.shared_fcs.1.bias"]
    with pytest.raises(GCNetError, match="cascade whose stages differ in their bbox_head"):
        identify(file("x.pth"), Checkpoint(state, class_names=NAMES))
