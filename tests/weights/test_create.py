"""A model by name, with weights from somewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_files import as_mmdet, equal

from gcnet.errors import GCNetError
from gcnet.models.detector import Detector
from gcnet.weights.catalog import find
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model
from gcnet.weights.load import load_model
from gcnet.weights.mmdet_keys import mmdet_key, our_keys

NAME = "mask_rcnn_tiny_gc4"


def test_class_names_and_mode() -> None:
    detector = create_model(NAME, num_classes=2)
    assert detector.spec.class_names == ("class 0", "class 1")
    assert not detector.training
    assert create_model(NAME, class_names=["cat", "dog", "owl"]).spec.num_classes == 3
    assert create_model(NAME).spec.class_names[:2] == ("person", "bicycle")
    assert len(create_model(NAME).spec.class_names) == 80


def test_from_an_mmdetection_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = create_model(NAME, num_classes=3)
    state = as_mmdet(source)
    assert any(tensor.shape[2:] == (1, 1) and "context_block" in key for key, tensor in state.items())
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "x.pth")
    assert equal(create_model(NAME, weights=tmp_path / "x.pth", num_classes=3), source)


def test_from_our_own_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = create_model(NAME, num_classes=3)
    save_model(source, tmp_path / "x.safetensors")
    assert equal(create_model(NAME, weights=str(tmp_path / "x.safetensors"), num_classes=3), source)
    # Without classes asked for, they are those of the file.
    assert equal(create_model(NAME, weights=tmp_path / "x.safetensors"), source)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    source = create_model(NAME, num_classes=3)
    save_model(source, tmp_path / "x.safetensors")
    torch.save({"meta": {}, "state_dict": as_mmdet(source)}, tmp_path / "x.pth")
    state = torch.get_rng_state()
    for file in (tmp_path / "x.safetensors", tmp_path / "x.pth"):
        assert equal(create_model(NAME, weights=file), source)
        assert equal(load_model(file, class_names=source.spec.class_names), source)
        assert equal(load_model(file, row=NAME), source)
    assert torch.equal(torch.get_rng_state(), state)


def test_new_classes_are_random_as_the_seed_says(tmp_path: Path) -> None:
    source = create_model(NAME, class_names=["person", "dog"])
    save_model(source, tmp_path / "x.safetensors")
    torch.manual_seed(5)
    loaded = create_model(NAME, weights=tmp_path / "x.safetensors", class_names=["dog", "owl"])
    torch.manual_seed(5)
    Detector(source.spec)  # what the weights were loaded into
    fresh = Detector(loaded.spec)
    key = "roi_heads.box_head.cls.weight"
    rows, old, new = (model.state_dict()[key] for model in (loaded, source, fresh))
    assert torch.equal(rows, torch.stack([old[1], new[1], old[2]]))


def test_classes_of_the_same_name_keep_their_rows(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = create_model(NAME, class_names=["person", "cell phone", "dog"])
    source.provenance = {"file": "somewhere.pth"}
    save_model(source, tmp_path / "x.safetensors")
    detector = create_model(NAME, weights=tmp_path / "x.safetensors", class_names=["board", "Cell_Phone"])
    assert detector.spec.class_names == ("board", "Cell_Phone")
    assert detector.provenance == {"file": "somewhere.pth", "classes_kept": ["Cell_Phone"]}
    theirs, ours = source.roi_heads.box_head.cls.weight, detector.roi_heads.box_head.cls.weight
    assert torch.equal(ours[1:], theirs[[1, 3]])  # the class, and background
    save_model(detector, tmp_path / "y.safetensors")
    assert load_model(tmp_path / "y.safetensors").provenance == detector.provenance

    renamed = create_model(NAME, weights=tmp_path / "x.safetensors", num_classes=3)
    assert renamed.spec.class_names == source.spec.class_names  # a count alone renames nothing
    assert create_model(NAME, weights=tmp_path / "x.safetensors", num_classes=2).spec.class_names == (
        "class 0",
        "class 1",
    )


def test_file_of_another_model_lists_some(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": as_mmdet(create_model("mask_rcnn_tiny", num_classes=3))}, tmp_path / "plain.pth"
    )
    with pytest.raises(GCNetError) as raised:
        create_model(NAME, weights=tmp_path / "plain.pth", num_classes=3)
    message = str(raised.value)
    assert "plain.pth does not fit this model" in message
    assert message.count("missing backbone") == 3
    assert "context" in message
    assert "\n" not in message

    wider = replace(find(NAME).spec, roi=replace(find(NAME).spec.roi, box_channels=128))
    save_model(Detector(wider), tmp_path / "wider.safetensors")
    with pytest.raises(GCNetError) as raised:
        create_model(NAME, weights=tmp_path / "wider.safetensors", num_classes=3)
    assert "roi_heads.box_head.fc1.bias is 128 there and 256 here" in str(raised.value)

    torch.save(
        {"state_dict": {f"blocks.{i}.weight": torch.zeros(1) for i in range(40)}}, tmp_path / "vit.pth"
    )
    with pytest.raises(GCNetError, match=r"and \d+ more"):
        create_model(NAME, weights=tmp_path / "vit.pth")


def test_mistakes() -> None:
    with pytest.raises(GCNetError, match="did you mean"):
        create_model("mask_rcnn_r50_gc8")
    with pytest.raises(GCNetError, match="no such file"):
        create_model(NAME, weights="no/such/file.pth")
    with pytest.raises(GCNetError, match="no such file"):
        create_model(NAME, weights="no/such/file.safetensors")
    with pytest.raises(GCNetError, match="no published ImageNet weights"):
        create_model(NAME, weights="imagenet")


def test_unknown_names_are_kept_for_the_error() -> None:
    own = list(create_model(NAME).state_dict())
    converted = our_keys({"neck.lateral_convs.0.conv.bias": torch.zeros(1), "x.y": torch.zeros(1)}, own)
    assert set(converted) == {"neck.lateral.0.bias", "x.y"}


def test_names_of_every_fusion() -> None:
    prefix = "backbone.layer3.5."
    assert mmdet_key(f"{prefix}context.scale.expand.bias") == f"{prefix}context_block.channel_mul_conv.3.bias"
    assert mmdet_key(f"{prefix}context.pool.weight") == f"{prefix}context_block.conv_mask.weight"
    assert mmdet_key(f"{prefix}conv2.weight") == f"{prefix}conv2.weight"
