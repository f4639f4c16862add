"""What a training starts from, and what it says about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gcnet.context_spec import ContextSpec
from gcnet.errors import GCNetError
from gcnet.weights.catalog import Row, Weights, find
from gcnet.weights.create import create_model, start_model
from gcnet.weights.fetch import LocalFile
from gcnet.weights.files import save_model
from gcnet.weights.imagenet import IMAGENET
from gcnet.weights.load import with_context
from gcnet.weights.start import Origin, find_start

TINY = find("mask_rcnn_tiny_gc4")
CLASSES = ("board", "Cell_Phone")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """A tiny row that pretends to be published, with its file (COCO's classes) on disk and no network."""
    torch.manual_seed(3)
    file = tmp_path / "published.safetensors"
    save_model(create_model(TINY.name), file)
    spec = replace(TINY.spec, backbone=replace(TINY.spec.backbone, frozen_stages=2))
    row = replace(TINY, spec=spec, weights=Weights("https://nowhere.invalid/published.pth", "0"), mask_ap=1.5)

    def fetch(weights: Weights, **_: object) -> LocalFile:
        path = file if weights.file == "published.pth" else tmp_path / weights.file
        if not path.exists():
            raise GCNetError("no network")
        return LocalFile(path)

    monkeypatch.setattr("gcnet.weights.fetch.fetch", fetch)
    return row


@pytest.mark.parametrize("weights", ["auto", "coco"])
def test_published_weights_and_two_lines(published: Row, weights: str, tmp_path: Path) -> None:
    begun = start_model(Origin(published, weights), CLASSES)
    assert begun.weights == "coco"
    whose, classes = begun.report
    assert whose == "weights: mask_rcnn_tiny_gc4 as published (COCO, mask AP 1.5)"
    assert classes == "classes: 1 of 2 keep their trained weights (Cell_Phone); new: board"
    theirs = create_model(TINY.name, weights=tmp_path / "published.safetensors").roi_heads.box_head.cls.weight
    ours = begun.model.roi_heads.box_head.cls.weight
    phone = find("mask_rcnn_r50").spec.class_names.index("cell phone")
    assert torch.equal(ours[1:], theirs[[phone, 80]])
    assert not torch.equal(ours[0], theirs[0])
    assert not begun.model.backbone.conv1.weight.requires_grad


def test_without_published_weights_the_backbone_of_imagenet(
    published: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published.safetensors").unlink()

    tensors = {n: t for n, t in create_model(TINY.name).backbone.state_dict().items() if "context" not in n}
    torch.save(tensors | {"conv1.weight": torch.full((16, 3, 7, 7), 7.0)}, tmp_path / "imagenet.pth")
    key = (TINY.spec.backbone.blocks, 16, 1, 4)
    monkeypatch.setitem(IMAGENET, key, Weights("https://nowhere.invalid/imagenet.pth", "0"))
    begun = start_model(Origin(published, "auto"), CLASSES)
    assert begun.weights == "imagenet"
    assert (begun.model.backbone.conv1.weight == 7).all()
    assert begun.report[0].endswith("random for the rest; those of the whole model: no network")
    assert begun.report[1] == "classes: all 2 are new: board, Cell_Phone"
    assert begun.model.provenance == {"backbone": "ImageNet"}


def test_without_any_one_line_says_what_to_do(
    published: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published.safetensors").unlink()
    monkeypatch.setenv("GCNET_HOME", str(tmp_path / "home"))
    with pytest.raises(GCNetError) as raised:
        start_model(Origin(published, "auto"), CLASSES)
    message = str(raised.value)
    assert f"put the file into {tmp_path / 'home' / 'weights'}" in message
    assert "--weights none" in message
    assert "\n" not in message
    with pytest.raises(GCNetError, match="no network"):  # asked for by name, nothing takes its place
        start_model(Origin(published, "coco"), CLASSES)


@pytest.mark.parametrize("weights", ["auto", None])
def test_tiny_models_start_from_nothing(weights: str | None) -> None:
    begun = start_model(Origin(TINY, weights), CLASSES)
    assert begun.weights == "none"
    assert begun.report[0] == "weights: none, all numbers are random"
    assert begun.model.provenance == {}


def test_from_a_file_of_another_model_of_the_same_shape(tmp_path: Path) -> None:
    source = create_model(TINY.name, class_names=CLASSES)
    source.spec = replace(source.spec, name="mine", image_size=(96, 96))
    save_model(source, tmp_path / "mine.safetensors")
    begun = start_model(Origin(TINY, str(tmp_path / "mine.safetensors")), CLASSES)
    assert begun.report[0] == f"weights: {tmp_path / 'mine.safetensors'}, a mine"
    assert begun.report[1] == "classes: all 2 keep their trained weights: board, Cell_Phone"
    assert begun.model.spec == replace(TINY.spec, class_names=CLASSES)
    with pytest.raises(GCNetError, match="does not fit"):
        start_model(Origin(find("mask_rcnn_tiny"), str(tmp_path / "mine.safetensors")), CLASSES)


def test_classes_that_a_file_does_not_name_are_those_of_the_data(tmp_path: Path) -> None:
    source = create_model(TINY.name, num_classes=2)
    save_model(source, tmp_path / "x.safetensors")
    begun = start_model(Origin(TINY, str(tmp_path / "x.safetensors")), CLASSES)
    assert begun.model.spec.class_names == CLASSES
    assert torch.equal(begun.model.roi_heads.box_head.cls.weight, source.roi_heads.box_head.cls.weight)


def test_a_model_in_memory_stays_as_it_is() -> None:
    model = create_model(TINY.name, class_names=CLASSES)
    assert find_start(model, "auto", (), None) == Origin(model)
    with pytest.raises(GCNetError, match="weights are for a model that is given by its name"):
        find_start(model, "coco", (), None)
    assert start_model(Origin(model, "auto"), CLASSES).model is model
    for options in ({"context": ContextSpec()}, {"remove_context": True}):
        with pytest.raises(GCNetError, match="in place, with the context blocks that it has"):
            find_start(model, "auto", (), None, **options)


@pytest.mark.parametrize("block", ["gc", "snl", "nl"])
def test_added_blocks_are_the_identity_and_go_again(block: str) -> None:
    torch.manual_seed(0)
    plain = create_model("mask_rcnn_tiny", num_classes=2)
    image = torch.randint(256, (96, 96, 3), dtype=torch.uint8).numpy()
    context = ContextSpec(block=block, stages=(False, True, False, True))
    added = with_context(plain, context)
    assert added.spec.backbone.context == context
    assert any(".context." in name for name in added.state_dict())
    before, after = (model.predict_images(image, score_threshold=0.0)[0] for model in (plain, added))
    assert len(before) > 0
    assert torch.equal(before.boxes, after.boxes)
    assert torch.equal(before.scores, after.scores)
    again = with_context(added, None)
    assert again.state_dict().keys() == plain.state_dict().keys()
    assert again.spec.name == plain.spec.name
    with pytest.raises(GCNetError, match="has context blocks already"):
        with_context(added, context)
    with pytest.raises(GCNetError, match="no context blocks to remove"):
        with_context(plain, None)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("r50_gc4_4conv1fc", "r50_4conv1fc"), ("my_gcnet", "my_gcnet"), ("x_gc3.5", "x"), ("y_gc", "y")],
)
def test_the_name_of_a_model_whose_blocks_are_taken_out(name: str, plain: str) -> None:
    model = create_model("mask_rcnn_tiny_gc4", num_classes=2)
    model.spec = replace(model.spec, name=name)
    assert with_context(model, None).spec.name == plain


def test_blocks_that_scale_are_not_added() -> None:
    with pytest.raises(GCNetError, match="would change"):
        with_context(create_model("mask_rcnn_tiny"), ContextSpec(block="se"))
