"""The report of an evaluation: what it counts, that it needs no network, that names cannot become markup."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from judged_sets import NAMES, draw_scene

from gcnet.data.dataset import DataSet, ImageRecord, LabelledImage
from gcnet.evaluation.coco_ap import CocoEvaluator
from gcnet.evaluation.results import CocoResults, ImageResults
from gcnet.judge.page import write_report
from gcnet.ops.segmentations import mask_to_rle
from gcnet.weights.catalog import find

ABOUT = {"model": "<b>model</b>", "data": "photos", "split": "valid"}


@pytest.fixture
def scene(tmp_path: Path) -> tuple[DataSet[ImageRecord], list[ImageResults]]:
    return draw_scene(tmp_path)


def test_a_detector(scene, tmp_path: Path) -> None:
    dataset, results = scene
    spec = replace(find("faster_rcnn_tiny_gc4").spec, class_names=NAMES)
    train_set = replace(dataset, records=dataset.records[2:3])
    shutil.copyfile(tmp_path / "2.png", tmp_path / "5.png")
    write_report(spec, CocoResults(results), dataset, tmp_path / "r", about=ABOUT, train_set=train_set)
    report = json.loads((tmp_path / "r/report.json").read_text())
    metrics = CocoEvaluator(dataset, results).compute()
    assert report["ap"]["box"]["AP"]["value"] == pytest.approx(metrics.box["AP"])
    assert report["ap"]["box"]["AP"]["low"] < metrics.box["AP"] < report["ap"]["box"]["AP"]["high"]
    assert [one["objects"] for one in report["classes"]] == [8, 8, 0]
    assert report["classes"][2]["box_AP"]["value"] is None
    assert report["confusion"]["table"] == [[4, 0, 0, 4], [0, 4, 0, 4], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert report["errors"]["box"]["background"]["count"] == 1
    assert report["errors"]["box"]["missed"]["count"] == 8
    assert report["worst_images"][0] | {"place": 0} == {
        "file_name": "0.png",
        "place": 0,
        "false": 1,
        "missed": 1,
    }
    assert [(one["file_name"], one["error"]) for one in report["suspects"]] == [("0.png", "background")]
    seen = [(one["file_name"], one["trained_on"]) for one in report["also_trained_on"]]
    assert seen == [("2.png", "2.png"), ("5.png", "2.png")]
    assert sum(one["count"] for one in report["calibration"]["bins"]) == 9
    page = (tmp_path / "r/report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<i>ant" not in page
    assert "&lt;i&gt;ant" in page
    assert "<b>model" not in page
    assert page.count("data:image/jpeg") == 2 * (8 + 1)


def test_nothing_found_nothing_annotated_and_broken_images(scene, tmp_path: Path) -> None:
    dataset, results = scene
    spec = replace(find("faster_rcnn_tiny_gc4").spec, class_names=NAMES)
    bare = replace(dataset, records=[replace(record, instances=()) for record in dataset.records])
    none = replace(dataset, records=[])
    for number, (some, found) in enumerate(((dataset, []), (bare, results), (bare, []), (none, []))):
        write_report(spec, CocoResults(found), some, tmp_path / f"{number}", about=ABOUT)
        assert "NaN" not in (tmp_path / f"{number}/report.json").read_text()
        page = (tmp_path / f"{number}/report.html").read_text()
        assert "nan" not in re.split(r"\W+", page)
        assert ("None of 16 objects is found" in page) == (number == 0)
    (tmp_path / "0.png").write_bytes(b"no image")
    write_report(spec, CocoResults(results), dataset, tmp_path / "broken", about=ABOUT)
    assert (tmp_path / "broken/report.html").read_text().count("data:image/jpeg") == 2 * 7


def test_masks_are_not_judged_by_objects_without_outlines(scene, tmp_path: Path) -> None:
    dataset, results = scene
    counts = mask_to_rle(np.ones((80, 100), np.uint8))["counts"]
    found = [replace(one, counts=[counts] * len(one)) for one in results]
    spec = replace(find("mask_rcnn_tiny_gc4").spec, class_names=NAMES)
    write_report(spec, CocoResults(found), dataset, tmp_path / "r", about=ABOUT)
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert report["ap"].keys() == report["errors"].keys() == {"box"}


def test_a_classifier(scene, tmp_path: Path) -> None:
    dataset, _ = scene
    images = [LabelledImage(record.path, number % 2) for number, record in enumerate(dataset.records)]
    labelled = DataSet(dataset.source, images, NAMES, (0, 1, 2))
    results = [
        {"file_name": "x", "class": NAMES[n % 2], "predicted": [NAMES[0]], "probabilities": [0.5 + n / 20]}
        for n in range(8)
    ]
    write_report(find("resnet_tiny_gc4").spec, results, labelled, tmp_path / "r", about=ABOUT)
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert report["top1"]["value"] == 0.5
    assert 0.1 < report["top1"]["low"] < 0.3
    assert report["confusion"]["table"] == [[4, 0, 0], [4, 0, 0], [0, 0, 0]]
    assert [one["file_name"] for one in report["mistakes"]] == ["7.png", "5.png", "3.png", "1.png"]
    assert [one["suspect"] for one in report["mistakes"]] == [True, True, True, False]
    page = (tmp_path / "r/report.html").read_text()
    assert "<i>ant" not in page
    assert page.count("data:image/jpeg") == 4
