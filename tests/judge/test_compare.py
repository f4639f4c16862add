"""Two models beside each other: the same ones do not differ, and a better one is said to be better."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from judged_sets import NAMES, draw_scene

from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.evaluation.results import CocoResults, ImageResults
from gcnet.judge.compare import verdict, write_comparison
from gcnet.weights.catalog import find, find_detector

SPEC = find_detector("faster_rcnn_tiny_gc4").spec
ABOUT = {"a": "<b>old</b>", "b": "new", "data": "photos", "split": "valid"}


def test_a_better_one_is_told_from_a_worse_one(tmp_path: Path) -> None:
    dataset, worse = draw_scene(tmp_path)
    better = [
        ImageResults(
            record.id,
            (80, 100),
            np.array([[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (i.box for i in record.instances)]),
            np.array([0.9, 0.8]),
            np.array([0, 1]),
            None,
        )
        for record in dataset.records
    ]
    both = [CocoResults(worse), CocoResults(better)]
    said = write_comparison([SPEC, SPEC], both, dataset, tmp_path, about=ABOUT)
    assert said == json.loads((tmp_path / "compare.json").read_text())
    assert said["verdict"].startswith("B is better by 0.")
    box = said["ap"]["box"]
    difference = box["difference"]["AP"]
    assert difference["value"] == pytest.approx(box["b"]["AP"]["value"] - box["a"]["AP"]["value"])
    assert 0 < difference["low"] < difference["value"] < difference["high"] <= 1
    assert [row["name"] for row in said["classes"]] == list(NAMES)
    assert said["classes"][2]["box"]["difference"]["value"] is None
    first = said["differing_images"][0]
    assert (first["file_name"], first["a"], first["b"]) == (
        "0.png",
        {"false": 1, "missed": 1},
        {"false": 0, "missed": 0},
    )
    page = (tmp_path / "compare.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<b>old" not in page
    assert page.count("data:image/jpeg") == 3 * 8


def test_the_same_one_does_not_differ(tmp_path: Path) -> None:
    dataset, found = draw_scene(tmp_path)
    same = [CocoResults(found)] * 2
    note = "B was trained on 2 of these 8 images."
    said = write_comparison([SPEC, SPEC], same, dataset, tmp_path, about=ABOUT, notes=[note])
    assert said["verdict"].endswith(f" {note}")
    assert set(said["ap"]["box"]["difference"]["AP"].values()) == {0.0}
    assert "cannot tell the two apart" in said["verdict"]
    assert said["differing_images"] == []


def test_words() -> None:
    worse = {"box AP": {"value": -0.2, "low": -0.3, "high": -0.1}}
    assert verdict(worse) == "B is worse by 0.200 box AP (95% between -0.300 and -0.100)."
    same = {"mask AP": {"value": 0.0, "low": 0.0, "high": 0.0}}
    nothing = {"mask AP": dict.fromkeys(("value", "low", "high"), math.nan)}  # of boxes alone
    assert verdict(nothing) == "There is nothing in these images to score mask AP on."
    assert verdict(same).startswith("There is no difference in mask AP (95% between +0.000 and +0.000): ")


def test_two_classifiers(tmp_path: Path) -> None:
    scene, _ = draw_scene(tmp_path)
    images = [LabelledImage(record.path, number % 2) for number, record in enumerate(scene.records)]
    dataset = DataSet(scene.source, images, NAMES, (0, 1, 2))
    a = [answer(n % 2, 0, 0.5 + n / 20) for n in range(8)]  # has those of the first class right
    b = [answer(n % 2, n % 2 if n else 1, 0.7) for n in range(8)]  # is wrong once
    spec = find("resnet_tiny_gc4").spec
    said = write_comparison([spec, spec], [a, b], dataset, tmp_path, about=ABOUT)
    assert said == json.loads((tmp_path / "compare.json").read_text())
    assert [said["top1"][who]["value"] for who in ("a", "b", "difference")] == [0.5, 0.875, 0.375]
    difference = said["top1"]["difference"]
    assert difference["low"] < 0 < difference["value"] < difference["high"] <= 1
    assert said["verdict"].startswith("B has more by 0.375 top-1 accuracy (95% between -0.")
    assert [row["top1"]["difference"]["value"] for row in said["classes"]] == [-0.25, 1.0, None]
    differing = said["differing_images"]  # the surest wrong answers first
    assert [one["file_name"] for one in differing] == ["7.png", "5.png", "0.png", "3.png", "1.png"]
    assert differing[0]["a"] == {"says": NAMES[0], "probability": 0.85}
    assert differing[0]["b"] == {"says": NAMES[1], "probability": 0.7}
    page = (tmp_path / "compare.html").read_text()
    assert page.count("data:image/jpeg") == 5
    assert "<b>old" not in page


def answer(true: int, found: int, probability: float) -> dict[str, object]:
    """What a classifier's result has of an image."""
    return {"class": NAMES[true], "predicted": [NAMES[found]], "probabilities": [probability]}
