"""Classifiers by name, their weights, and detectors that start from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.models.complexity import count_complexity
from gcnet.models.detector import Detector
from gcnet.weights.catalog import CLASSIFIERS, ClassifierRow, find
from gcnet.weights.create import create_model, start_model
from gcnet.weights.files import describe_preprocessing, read_model_file, save_model
from gcnet.weights.load import load_model
from gcnet.weights.start import Origin

NAMES = ("cat", "dog", "owl")


def trained(name: str = "resnet_tiny_gc4", class_names: tuple[str, ...] = NAMES) -> Classifier:
    """Random weights, blocks and all: nothing in it is still what a fresh one has."""
    torch.manual_seed(1)
    classifier = create_model(name, class_names=class_names)
    assert isinstance(classifier, Classifier)
    with torch.no_grad():
        for tensor in classifier.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.05)
    return classifier


@pytest.mark.parametrize("row", CLASSIFIERS, ids=lambda row: row.name)
def test_rows(row: ClassifierRow) -> None:
    assert find(row.name) is row
    with torch.device("meta"):
        classifier = Classifier(row.spec)
    counted = count_complexity(row.spec)
    assert round(counted.parameters / 1e6, 2) == row.params
    assert round(counted.total_flops / 1e9, 3 if row.gflops < 1 else 2) == row.gflops
    blocks = sum(name.endswith(".context") for name, _ in classifier.named_modules())
    stages = {"resnet_tiny": 3, "resnet50": 13, "resnet101": 30}[row.name.split("_gc")[0]]
    assert blocks == (stages if "_gc" in row.name else 0)
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_classes() -> None:
    assert create_model("resnet_tiny").spec.num_classes == 1000
    assert create_model("resnet_tiny", num_classes=2).spec.class_names == ("class 0", "class 1")
    assert not create_model("resnet_tiny", class_names=NAMES).training


def test_a_file_knows_that_it_is_a_classifier(tmp_path: Path) -> None:
    classifier = trained()
    save_model(classifier, tmp_path / "c.safetensors", provenance={"epoch": 3})
    loaded = load_model(tmp_path / "c.safetensors")
    assert isinstance(loaded, Classifier)
    assert loaded.spec == classifier.spec
    assert loaded.provenance == {"epoch": 3}
    picture = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    one, other = (model.predict_images(picture)[0] for model in (classifier.eval(), loaded))
    assert torch.equal(one.probabilities, other.probabilities)
    info = read_model_file(tmp_path / "c.safetensors")
    preprocessing = json.loads(info.metadata["preprocessing"])
    assert preprocessing == describe_preprocessing(classifier.spec)
    assert preprocessing["crop"] == {"square": 192, "offset": "round((side - square) / 2)"}
    with pytest.raises(GCNetError, match=r"is an image classifier .*, mask_rcnn_tiny is a detector"):
        load_model(tmp_path / "c.safetensors", row="mask_rcnn_tiny")


def test_rows_of_known_classes_are_kept(tmp_path: Path) -> None:
    source = trained()
    save_model(source, tmp_path / "c.safetensors")
    other = create_model(
        "resnet_tiny_gc4", weights=tmp_path / "c.safetensors", class_names=("bee", "owl", "cat")
    )
    assert isinstance(other, Classifier)
    assert torch.equal(other.fc.weight[1:], source.fc.weight[[2, 0]])
    assert not torch.isin(other.fc.weight[0], source.fc.weight).any()
    assert torch.equal(other.backbone.conv1.weight, source.backbone.conv1.weight)
    with pytest.raises(GCNetError, match=r"c\.safetensors does not fit"):
        create_model("resnet_tiny_gc16", weights=tmp_path / "c.safetensors")


def test_torchvisions_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = resnet50(num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "r50.pth")
    ours = create_model("resnet50_gc16", weights=tmp_path / "r50.pth")
    assert isinstance(ours, Classifier)
    assert ours.spec.class_names == ("class 0", "class 1", "class 2")
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():  # new blocks change nothing
        expected = theirs((images.float() - ours.mean) / ours.std)
        torch.testing.assert_close(ours.logits(images), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(GCNetError, match="does not fit"):
        create_model("resnet101", weights=tmp_path / "r50.pth")


@pytest.mark.parametrize("source", ["resnet_tiny_gc4", "resnet_tiny"])
def test_a_detector_starts_from_a_classifier(source: str, tmp_path: Path) -> None:
    classifier = trained(source)
    file = tmp_path / "c.safetensors"
    save_model(classifier, file, provenance={"top1": 0.9})
    detector = create_model("mask_rcnn_tiny_gc4", weights=file, num_classes=2)
    assert isinstance(detector, Detector)
    theirs = classifier.backbone.state_dict()
    same = {
        name for name, t in detector.backbone.state_dict().items() if name in theirs and t.equal(theirs[name])
    }
    assert same == theirs.keys()
    blocks = sum(".context." in name for name in same)
    assert bool(blocks) == ("gc4" in source)
    assert detector.spec.class_names == ("class 0", "class 1")
    assert detector.provenance == {"backbone": {"file": "c.safetensors", "model": source, "top1": 0.9}}

    row = find("mask_rcnn_tiny_gc4")
    start = start_model(Origin(row, str(file)), ("washer",))
    with_blocks = " with its context blocks" if "gc4" in source else ""
    assert start.report[0] == (
        f"weights: {file}, a {source},{with_blocks} for the backbone, random for the rest"
    )
    assert start.model.backbone.conv1.weight.equal(classifier.backbone.conv1.weight)


def test_a_backbone_with_other_blocks_is_refused(tmp_path: Path) -> None:
    save_model(trained("resnet_tiny_gc4"), tmp_path / "c.safetensors")
    for name in ("mask_rcnn_tiny_gc16", "mask_rcnn_r50_gc4"):
        with pytest.raises(GCNetError, match=r"c\.safetensors does not fit this model"):
            create_model(name, weights=tmp_path / "c.safetensors")
    with pytest.raises(GCNetError, match=r"c\.safetensors has context blocks, and this model has no place"):
        create_model("mask_rcnn_tiny", weights=tmp_path / "c.safetensors")


def test_starting_a_classifier(tmp_path: Path) -> None:
    row = find("resnet_tiny_gc4")
    start = start_model(Origin(row, "auto"), NAMES)
    assert start.weights == "none"
    assert start.report == (
        "weights: none, all numbers are random",
        "classes: all 3 are new: cat, dog, owl",
    )
    file = tmp_path / "c.safetensors"
    save_model(trained(class_names=("owl", "bee")), file)
    start = start_model(Origin(row, str(file)), NAMES)
    assert start.report[:2] == (
        f"weights: {file}",
        "classes: 1 of 3 keep their trained weights (owl); new: cat, dog",
    )


def test_mistakes(tmp_path: Path) -> None:
    save_model(create_model("mask_rcnn_tiny", num_classes=2), tmp_path / "d.safetensors")
    with pytest.raises(GCNetError, match="is a detector"):
        create_model("resnet_tiny", weights=tmp_path / "d.safetensors")
    with pytest.raises(GCNetError, match="no published weights: add --weights imagenet or FILE"):
        create_model("resnet_tiny", weights="coco")
    with pytest.raises(GCNetError, match="no published ImageNet weights"):
        create_model("resnet_tiny", weights="imagenet")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match="no fc layer"):
        create_model("resnet50", weights=tmp_path / "x.pth")
    with pytest.raises(GCNetError, match='did you mean "resnet50_gc'):
        create_model("resnet50_gc8")
