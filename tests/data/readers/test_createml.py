"""CreateML's lists of images, one file for all or one for each."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcnet.data.load import load_splits


def boxed(label: str, x: float, y: float, width: float, height: float) -> dict[str, object]:
    return {"label": label, "coordinates": {"x": x, "y": y, "width": width, "height": height}}


def write(folder: Path, name: str, content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def image(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), np.zeros((48, 64, 3), np.uint8))


def found(root: Path) -> dict[str, dict[str, list[tuple[str, list[float]]]]]:
    """By split and image, the class and box (xyxy) of each object."""
    return {
        split: {
            record.path.name: [(data.class_names[i.label], list(i.box)) for i in record.instances]
            for record in data.records
        }
        for split, data in load_splits(root, val_fraction=0).items()
    }


def test_a_file_for_each_split(tmp_path: Path) -> None:
    """As Roboflow writes it. Boxes are given by their centres."""
    for split, label in (("train", "cat"), ("valid", "dog"), ("train", "dog")):
        image(tmp_path / split, f"{label}.jpg")
    cat = {"image": "cat.jpg", "annotations": [boxed("cat", 20, 10.5, 8, 5), boxed("dog", 40, 30, 10, 20)]}
    dog = {"imagefilename": "dog.jpg", "annotation": [boxed("dog", 32, 24, 64, 48)]}
    write(tmp_path / "train", "_annotations.createml.json", [cat, {"image": "dog.jpg", "annotations": []}])
    write(tmp_path / "valid", "_annotations.createml.json", [dog])
    assert found(tmp_path) == {
        "train": {"cat.jpg": [("cat", [16, 8, 24, 13]), ("dog", [35, 20, 45, 40])], "dog.jpg": []},
        "valid": {"dog.jpg": [("dog", [0, 0, 64, 48])]},
    }


def test_a_file_for_each_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As LabelImg writes it. What is no box is counted."""
    for number in (1, 2):
        image(tmp_path / "images", f"{number}.png")
        content = [{"image": f"{number}.png", "verified": False, "annotations": [boxed("cat", 20, 20, 8, 8)]}]
        content[0]["annotations"].append({"label": "cat", "coordinates": {"x": "left"}})
        write(tmp_path, f"{number}.json", content)
    boxes = [("cat", [16, 16, 24, 24])]
    assert found(tmp_path) == {"train": {"1.png": boxes, "2.png": boxes}}
    assert "2 of 4 annotations have neither a box nor an outline (first: id 1.png:1); left out" in caplog.text
