"""Lists of images with boxes behind each, as YOLO for Keras has them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gcnet.data.load import load_splits

Boxes = dict[str, list[tuple[str, tuple[float, ...]]]]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((60, 80, 3), 99, np.uint8))


def objects(root: Path) -> dict[str, Boxes]:
    """By split: class and box of each object of each image."""
    return {
        split: {
            record.path.name: [(data.class_names[one.label], one.box) for one in record.instances]
            for record in data.records
        }
        for split, data in load_splits(root).items()
    }


def test_roboflows_lists(tmp_path: Path) -> None:
    """Labels of a few test images, made with another tool, are no data set of their own beside these."""
    for split in ("train", "valid"):
        for name in ("a 1.jpg", "b.jpg", "c.jpg"):
            image(tmp_path / split / name)
        lines = "a 1.jpg 20,10,60,40,1 8,6,24,18,0\nb.jpg 60,40,20,10,1\nc.jpg\n"  # the last box is mirrored
        (tmp_path / split / "_annotations.txt").write_text(lines)
        (tmp_path / split / "_classes.txt").write_text("cat\ntop hat\nsock")
    image(tmp_path / "test" / "d.jpg")
    (tmp_path / "test" / "d.txt").write_text("15 0.5 0.5 0.5 0.5\n")
    (tmp_path / "test" / "classes.txt").write_text("cat\n")
    hat, cat = ("top hat", (20, 10, 60, 40)), ("cat", (8, 6, 24, 18))
    found = {"a 1.jpg": [hat, cat], "b.jpg": [hat], "c.jpg": []}
    assert objects(tmp_path) == {"train": found, "valid": found}
    assert load_splits(tmp_path)["train"].class_names == ("cat", "sock", "top hat")


def test_numbers_beyond_the_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are none of these: also beside a single one."""
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "train" / name)
    (tmp_path / "train" / "_annotations.txt").write_text(
        "a.jpg 20,10,60,40,0 8,6,24,18,1\nb.jpg 8,6,24,18,1\n"
    )
    (tmp_path / "train" / "_classes.txt").write_text("cat\n")
    assert objects(tmp_path) == {"train": {"a.jpg": [("cat", (20, 10, 60, 40))], "b.jpg": []}}
    assert "2 of 3 boxes have a class that _classes.txt lacks (first: 1); left out" in caplog.text


def test_lists_of_another_machine_and_numbers_without_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "JPEGImages" / "a.jpg")
    for split in ("train", "val"):
        line = "D:\\my work\\VOC2007\\JPEGImages\\a.jpg 20,10,60,40,3\n"
        (tmp_path / f"2007_{split}.txt").write_text(line)
    found = {"a.jpg": [("3", (20, 10, 60, 40))]}
    assert objects(tmp_path) == {"train": found, "valid": found}
    assert "classes are called by their numbers" in caplog.text


def test_lists_without_boxes_are_yolos(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "train.txt").write_text("images/a.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    assert objects(tmp_path) == {"train": {"a.jpg": [("cat", (20, 15, 60, 45))]}}
