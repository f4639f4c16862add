"""Whole arrays at a time, against pycocotools image by image: ties, crowds, areas and limits among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gcnet.evaluation import average_precision
from gcnet.evaluation.average_precision import Objects, match, score

IMAGES, CLASSES = 12, 3


def objects(rng: np.random.Generator, count: int) -> tuple[Objects, np.ndarray]:
    """Boxes on a coarse grid, so that equal IoUs are many; and whether each is a crowd."""
    sides = rng.integers(2, 14, (count, 2)) * rng.choice([1, 3, 10], (count, 1))
    boxes = np.concatenate([rng.integers(0, 6, (count, 2)) * 4, sides], 1).astype(np.float64)
    images, classes = rng.integers(IMAGES, size=count), rng.integers(CLASSES, size=count)
    sizes = np.tile([200, 200], (count, 1))
    return Objects(images, classes, boxes, boxes[:, 2:].prod(1), sizes), rng.random(count) < 0.2


def reference(truth: Objects, crowd: np.ndarray, found: Objects, scores: np.ndarray) -> COCOeval:
    def entries(these: Objects) -> list[dict[str, Any]]:
        columns = zip(these.images.tolist(), these.classes.tolist(), these.boxes.tolist(), strict=True)
        return [{"image_id": image, "category_id": k, "bbox": box} for image, k, box in columns]

    gt = COCO()
    gt.dataset = {
        "info": {},
        "images": [{"id": id} for id in range(IMAGES)],
        "categories": [{"id": id} for id in range(CLASSES)],
        "annotations": [
            entry | {"id": id + 1, "iscrowd": int(many), "area": area}
            for id, (entry, many, area) in enumerate(zip(entries(truth), crowd, truth.areas, strict=True))
        ],
    }
    gt.createIndex()
    results = [entry | {"score": value} for entry, value in zip(entries(found), scores.tolist(), strict=True)]
    evaluation = COCOeval(gt, gt.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize(("seed", "count"), [(0, 60), (1, 500), (2, 500), (3, 6000)])
def test_equals_pycocotools(seed: int, count: int) -> None:
    """6000 detections are more than 100 of an image and class."""
    rng = np.random.default_rng(seed)
    truth, crowd = objects(rng, 80)
    found, _ = objects(rng, count)
    near = rng.integers(len(truth), size=count)
    hit = rng.random(count) < 0.5
    found.boxes[hit] = truth.boxes[near][hit] + rng.integers(-1, 2, (hit.sum(), 4))
    found.images[hit], found.classes[hit] = truth.images[near][hit], truth.classes[near][hit]
    found.areas[:] = found.boxes[:, 2:].prod(1)
    scores = rng.integers(1, 20, count) / 20
    ours = score(match(truth, crowd, found, scores, CLASSES))
    theirs = reference(truth, crowd, found, scores).eval
    assert 0.05 < ours.precision[ours.precision > -1].mean() < 0.9
    assert np.abs(ours.precision - theirs["precision"][..., 2]).max() < 1e-12
    assert np.abs(ours.recall - theirs["recall"][..., 2]).max() < 1e-12
    assert np.abs(ours.limited - theirs["recall"][:, :, 0, :2]).max() < 1e-12


def test_pairs_are_compared_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where objects are thousands, all pairs at once would not fit into memory."""
    rng = np.random.default_rng(5)
    truth, crowd = objects(rng, 300)
    found, _ = objects(rng, 700)
    scores = rng.random(700)
    whole = score(match(truth, crowd, found, scores, CLASSES))
    monkeypatch.setattr(average_precision, "PAIRS", 50)
    parts = score(match(truth, crowd, found, scores, CLASSES))
    assert (whole.precision == parts.precision).all()
    assert whole.precision.max() > 0.1
