"""Checkpoints of all generations of mmdetection give the model they were made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_files import CASCADE, NAMES, as_mmdet, as_version_1, built, equal, small
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.spec import ModelSpec, RoISpec
from gcnet.weights.create import create_model
from gcnet.weights.load import load_model
from gcnet.weights.mmdet_keys import is_version_1, modernise

DEFORMABLE = replace(small().backbone, deformable_stages=(False, True, True, True))
SPECS = {
    "two layers": small(),
    "four convolutions": small(
        fpn_norm="sync", roi=RoISpec(4, 1, 24, mask_channels=8, mask_convs=2, norm="sync")
    ),
    "deformable cascade": small(backbone=DEFORMABLE, cascade=CASCADE),
}


def saved(state: dict[str, Tensor], version: int, path: Path) -> Path:
    if version == 1:
        content = {"state_dict": as_version_1(state), "meta": {"CLASSES": NAMES, "mmdet_version": "0.6.0"}}
    elif version == 2:
        content = {"state_dict": state, "meta": {"CLASSES": NAMES, "mmdet_version": "2.3.0", "epoch": 12}}
    else:
        content = {"state_dict": state, "meta": {"dataset_meta": {"classes": NAMES}}, "message_hub": {}}
    torch.save(content, path, _use_new_zipfile_serialization=version == 3)
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("name", SPECS)
def test_every_generation_of_files(name: str, version: int, tmp_path: Path) -> None:
    source = built(SPECS[name])
    detector = load_model(saved(as_mmdet(source), version, tmp_path / "epoch_12.pth"))
    assert equal(detector, source)
    assert not detector.training
    assert detector.spec.class_names == NAMES
    assert detector.spec.coordinates == ("inclusive" if version == 1 else "continuous")
    assert detector.provenance["file"] == "epoch_12.pth"


def test_background_moves_from_the_first_place_to_the_last() -> None:
    weight = torch.arange(4.0)[:, None].expand(4, 5)
    old = {
        "rpn_head.rpn_reg.weight": torch.arange(12.0),
        "bbox_head.fc_cls.weight": weight,
        "bbox_head.fc_cls.bias": weight[:, 0],
        "bbox_head.fc_reg.weight": weight.repeat_interleave(4, 0),
        "bbox_head.fc_reg.bias": weight[:, 0].repeat_interleave(4),
        "mask_head.conv_logits.weight": weight[..., None, None],
        "mask_head.conv_logits.bias": weight[:, 0],
        "backbone.layer2.0.conv2_offset.weight": torch.ones(2),
    }
    new = modernise(old)
    assert new["roi_head.bbox_head.fc_cls.weight"][:, 0].tolist() == [1, 2, 3, 0]
    assert new["roi_head.bbox_head.fc_cls.bias"].tolist() == [1, 2, 3, 0]
    assert new["roi_head.bbox_head.fc_reg.weight"][:, 0].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert new["roi_head.bbox_head.fc_reg.bias"].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert new["roi_head.mask_head.conv_logits.weight"].flatten(1)[:, 0].tolist() == [1, 2, 3]
    assert new["roi_head.mask_head.conv_logits.bias"].tolist() == [1, 2, 3]
    assert torch.equal(new["rpn_head.rpn_reg.weight"], old["rpn_head.rpn_reg.weight"])
    assert "backbone.layer2.0.conv2.conv_offset.weight" in new
    assert modernise(new).keys() == new.keys()
    assert all(torch.equal(tensor, new[name]) for name, tensor in modernise(new).items())


def test_deltas_of_all_classes_together_have_no_background() -> None:
    old = {"rpn_head.x": torch.zeros(1), "bbox_head.0.fc_reg.bias": torch.arange(4.0)}
    assert modernise(old)["roi_head.bbox_head.0.fc_reg.bias"].tolist() == [0, 1, 2, 3]


def test_one_stage_detectors_are_not_taken_for_old_files() -> None:
    assert not is_version_1(
        {"backbone.conv1.weight": torch.zeros(1), "bbox_head.retina_cls.weight": torch.zeros(1)}
    )


def test_a_row_by_name_takes_an_old_file_too(tmp_path: Path) -> None:
    source = built(replace(create_model("mask_rcnn_tiny_gc4").spec, class_names=NAMES))
    path = saved(as_mmdet(source), 1, tmp_path / "old.pth")
    detector = create_model("mask_rcnn_tiny_gc4", weights=path)
    assert equal(detector, source)
    assert detector.spec.coordinates == "inclusive"
    other = create_model("mask_rcnn_tiny_gc4", weights=path, class_names=["coil", "tube"])
    assert other.spec.coordinates == "inclusive"


def test_what_does_not_fit_is_counted_by_kind(tmp_path: Path) -> None:
    state = as_mmdet(built(small()))
    del state["rpn_head.rpn_cls.bias"], state["backbone.layer3.0.bn2.bias"]
    state |= {"backbone.layer4.0.extra": torch.zeros(1), "rpn_head.rpn_reg.weight": torch.zeros(9, 16, 1, 1)}
    path = saved(state, 2, tmp_path / "x.pth")
    with pytest.raises(GCNetError) as raised:
        load_model(path)
    message = str(raised.value)
    assert "x.pth does not fit this model (tensors: 2 missing, 1 unexpected, 1 of another shape)" in message
    assert "rpn.deltas.weight is 9x16x1x1 there and 12x16x1x1 here" in message
    assert "\n" not in message


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_old_files_predict(spec: ModelSpec, tmp_path: Path) -> None:
    image = torch.randint(0, 256, (60, 90, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    old = load_model(saved(as_mmdet(built(spec)), 1, tmp_path / "x.pth"))
    found = old.predict_images(image.numpy(), score_threshold=0.0)[0]
    assert len(found) > 0
    assert found.boxes.min() >= 0
    assert (found.boxes <= torch.tensor([90.0, 60, 90, 60])).all()
    assert found.masks.shape[1:] == (60, 90)
