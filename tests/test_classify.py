"""Folders of photos in, classes and a sheet out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gcnet.classify import classify_paths
from gcnet.errors import GCNetError
from gcnet.models.build import build_classifier
from gcnet.models.classifier import Classifier
from gcnet.models.spec import ClassifierSpec, ResNetSpec

BACKBONE = ResNetSpec((1, 1, 1, 1), 16, 16, norm="batch", frozen_stages=0)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    names = ("cat", "dog $5", "a class whose name is much too long for a sheet", "owl", "bee", "elk")
    return build_classifier(ClassifierSpec("small", names, BACKBONE, image_size=(40, 32))).eval()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(7):
        assert cv2.imwrite(
            str(tmp_path / "photos" / f"{i}.png"), rng.integers(0, 256, (30 + i, 300, 3), dtype=np.uint8)
        )
    return tmp_path / "photos"


def test_json_and_sheet(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    (photos / "3.png").write_bytes(b"broken")
    summary = classify_paths(classifier, [photos], tmp_path / "out", top=2, progress=False)
    entries = json.loads((tmp_path / "out" / "results.json").read_text())
    assert entries == summary.results
    assert [Path(entry["file_name"]).name for entry in entries] == [f"{i}.png" for i in range(7)]
    assert "not an image" in entries[3]["error"]
    assert [path.name for path, _ in summary.failed] == ["3.png"]
    expected = classifier.predict_images(photos / "0.png", top=2)[0]
    assert entries[0]["predicted"] == list(expected.names)
    assert entries[0]["probabilities"] == pytest.approx(expected.probabilities.tolist(), abs=1e-5)
    sheet = cv2.imread(str(tmp_path / "out" / "overview.jpg"))
    assert sheet is not None
    assert sheet.shape[0] < sheet.shape[1]  # two rows of five


def test_without_a_sheet(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    classify_paths(classifier, [photos / "0.png"], tmp_path / "out", sheet=False, progress=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_the_sheet_replaces_no_picture(classifier: Classifier, photos: Path) -> None:
    (photos / "0.png").rename(photos / "overview.jpg")
    with pytest.raises(GCNetError, match="would replace an input image"):
        classify_paths(classifier, [photos], photos, progress=False)
