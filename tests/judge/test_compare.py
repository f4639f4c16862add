"""Two detectors beside each other: the same ones do not differ, and a better one is said to be better."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from judged_sets import NAMES, draw_scene

from gcnet.evaluation.results import CocoResults, ImageResults
from gcnet.judge.compare import verdict, write_comparison
from gcnet.weights.catalog import find_detector

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
    worse = {"box": {"value": -0.2, "low": -0.3, "high": -0.1}}
    assert verdict(worse) == "B is worse by 0.200 box AP (95% between -0.300 and -0.100)."
