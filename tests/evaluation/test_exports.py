"""An export is scored as its model is; its program runs in PyTorch here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gcnet import create_model
from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.data.readers.coco import CocoDataset
from gcnet.deploy.programs import Probabilities, Program
from gcnet.deploy.runtime import Details, ExportedClassifier, ExportedDetector, Run
from gcnet.errors import GCNetError
from gcnet.evaluation.classify import ClassMetrics
from gcnet.evaluation.evaluate import evaluate
from gcnet.models.tiles import Tiles
from gcnet.models.views import Views
from gcnet.ops.images import write_image
from lively import lively_detector


def run(program: nn.Module) -> Run:
    return lambda images: [part.numpy() for part in program(torch.from_numpy(images))]


def test_a_detector(make_dataset: Callable[..., CocoDataset], tmp_path: Path) -> None:
    dataset = make_dataset()
    detector = lively_detector(None, class_names=dataset.class_names).eval()
    nn.init.normal_(detector.roi_heads.box_stages[0].cls.weight, std=0.5)
    details = Details("busy", dataset.class_names, detector.spec.image_size, masks=True, detections=100)
    exported = ExportedDetector(details, run(Program(detector)), "0123")
    metrics, results = evaluate(exported, dataset, workers=0, out=tmp_path, progress=False)
    exact, expected = evaluate(detector, dataset, workers=0, progress=False)
    assert len(results) == len(expected) > 50
    for ours, theirs in zip(results, expected, strict=True):
        assert ours["image_id"] == theirs["image_id"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=2e-3)
    assert metrics.box == pytest.approx(exact.box, abs=1e-6)
    assert metrics.mask == pytest.approx(exact.mask, abs=1e-6)
    call = json.loads((tmp_path / "call.json").read_bytes())
    assert (call["weights"], call["max_detections"]) == ("0123", 100)


def test_tiles(make_dataset: Callable[..., CocoDataset]) -> None:
    """An object is found in the middle of each tile of 200 x 200 pixels; the image's own joins one."""
    dataset = make_dataset()
    middle = [np.array([[[32, 32, 64, 64]]], np.float32), np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1))]
    details = Details("middle", dataset.class_names, (96, 96), masks=False)
    exported = ExportedDetector(details, lambda images: middle, "0123")
    _, results = evaluate(exported, dataset, workers=0, views=Views(Tiles(80, 0.2)), progress=False)
    boxes = [one["bbox"] for one in results if one["image_id"] == 12]
    assert [26.667, 26.667, 26.667, 26.667] in boxes
    assert len(boxes) == 9
    with pytest.raises(GCNetError, match="an export cannot look at an image twice"):
        evaluate(exported, dataset, workers=0, views=Views(flip=True), progress=False)


def test_a_classifier(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    torch.manual_seed(0)
    classifier = create_model("resnet_tiny", num_classes=3).eval()
    classifier.spec = replace(classifier.spec, class_names=names, image_size=(40, 32))
    records = [LabelledImage(tmp_path / f"{number}.png", number % 3) for number in range(5)]
    for number, record in enumerate(records):
        write_image(record.path, np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8))
    dataset = DataSet(tmp_path, records, names, (0, 1, 2))
    details = Details("tiny", names, classifier.spec.image_size, masks=False, kind="classifier")
    exported = ExportedClassifier(details, run(Probabilities(classifier)))
    metrics, results = evaluate(exported, dataset, workers=0, progress=False)
    exact, expected = evaluate(classifier, dataset, workers=0, progress=False)
    assert isinstance(metrics, ClassMetrics)
    assert isinstance(exact, ClassMetrics)
    assert list(results) == list(expected)
    assert metrics.loss == pytest.approx(exact.loss, abs=1e-6)
