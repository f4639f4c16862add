"""The same detections as the reference, at the tolerance that the project promises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from gcnet.models.detector import Detector
from gcnet.ops.images import fit_size, read_image, resize_image, stack_images
from gcnet.types import Batch, Detections

BOX, SCORE, MASK_SHARE, MASK_PIXELS = 0.02, 5e-4, 0.005, 2
THRESHOLD, LIMIT = 0.05, 100

GC4 = "mask-rcnn_r50-syncbn-gcb-r4-c3-c5_fpn_1x_coco"
R50 = "mask-rcnn_r50_fpn_1x_coco"
R101 = "mask-rcnn_r101-gcb-r16-c3-c5_fpn_1x_coco"


def excused(score: float, scores: np.ndarray) -> bool:
    """Whether a detection may be missing on the other side: at the threshold, or at the cut."""
    at_cut = len(scores) == LIMIT and score - scores.min() < SCORE
    return abs(score - THRESHOLD) < SCORE or bool(at_cut)


def compare(ours: Detections, theirs: dict[str, Any]) -> list[str]:
    """What differs beyond the tolerance, one line each; detections are paired by label and box."""
    scores, boxes, labels = (np.array(theirs[part]) for part in ("scores", "boxes", "labels"))
    problems, taken = [], set()
    for index, (score, box, label) in enumerate(zip(scores, boxes, labels, strict=True)):
        distance = np.abs(ours.boxes.numpy() - box).max(axis=1)
        near = (ours.labels.numpy() == label) & (distance <= BOX) & ~np.isin(np.arange(len(ours)), [*taken])
        if not near.any():
            if not excused(score, scores):
                problems.append(f"reference {index} (score {score:.4f}) was not found")
            continue
        partner = int(np.where(near, distance, np.inf).argmin())
        taken.add(partner)
        if abs(float(ours.scores[partner]) - score) > SCORE:
            problems.append(f"reference {index}: score {float(ours.scores[partner]):.5f}, not {score:.5f}")
        mask = coco_mask.decode({"size": theirs["size"], "counts": theirs["masks"][index].encode()})
        different = int((ours.masks[partner].numpy() != mask.astype(bool)).sum())
        if different > max(MASK_PIXELS, MASK_SHARE * int(mask.sum())):
            problems.append(f"reference {index}: mask differs in {different} of {int(mask.sum())} pixels")
    ours_scores = ours.scores.numpy()
    for index in set(range(len(ours))) - taken:
        if not excused(float(ours_scores[index]), ours_scores):
            problems.append(f"our {index} (score {ours_scores[index]:.4f}) is not the reference's")
    return problems


def batch_of(path: Path, detector: Detector) -> Batch:
    image = read_image(path)
    original = (image.shape[0], image.shape[1])
    size = fit_size(original, detector.spec.image_size)
    return Batch(stack_images([resize_image(image, size)]), [size], [original], [0])


CASES = [
    pytest.param(GC4, ("img0", "img1"), id="r50_syncbn_gc4"),
    pytest.param(R50, ("img1",), id="r50"),
    pytest.param(R101, ("img0",), id="r101_gc16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("row", "images"), CASES)
def test_detections(
    row: str,
    images: tuple[str, ...],
    reference_model: Callable[[str], Detector],
    golden: Callable[[str], Any],
    pictures: dict[str, Path],
) -> None:
    detector = reference_model(row)
    features: list[torch.Tensor] = []
    detector.backbone.register_forward_hook(lambda _, __, maps: features.extend(maps))
    detector.neck.register_forward_hook(lambda _, __, maps: features.extend(maps))
    for image in images:
        features.clear()
        theirs = golden("detections.json.gz")[f"{row}/{image}"]
        ours = detector.predict_images(pictures[image])[0]
        for value, (name, sample) in zip(features, theirs["features"].items(), strict=True):
            found = value.flatten()[sample["idx"]].numpy()
            assert np.abs(found - sample["val"]).max() < 2e-4, name
        assert len(theirs["scores"]) > 20
        assert compare(ours, theirs) == []
    assert compare_is_strict(ours, theirs)


def compare_is_strict(ours: Detections, theirs: dict[str, Any]) -> bool:
    """That each tolerance can fail, shown on the detections that have just passed."""
    rows, columns = ours.masks[0].nonzero().unbind(1)
    assert len(rows) > 100
    moved = ours.to("cpu")
    moved.boxes[0, 0] += 2 * BOX
    assert any("not found" in p for p in compare(moved, theirs))
    moved.boxes[0, 0] -= 2 * BOX
    moved.scores[1] += 2 * SCORE
    assert any("score" in p for p in compare(moved, theirs))
    moved.scores[1] -= 2 * SCORE
    moved.masks[0][rows[: len(rows) // 50], columns[: len(rows) // 50]] = False
    assert any("mask differs" in p for p in compare(moved, theirs))
    return True


def test_preprocessing_is_the_reference_s_to_the_bit(
    golden: Callable[[str], Any], pictures: dict[str, Path]
) -> None:
    from gcnet.zoo.create import create_model

    detector = create_model("mask_rcnn_tiny")  # the preprocessing alone matters: take the cheapest network
    reference = create_model.__globals__["find"](GC4).spec
    detector.spec = reference
    for image, path in pictures.items():
        theirs = golden("detections.json.gz")[f"{GC4}/{image}"]
        normalised = detector._normalise(batch_of(path, detector))
        assert list(normalised.shape) == theirs["input_shape"]
        assert hashlib.sha256(normalised.numpy().tobytes()).hexdigest() == theirs["sha256"]
