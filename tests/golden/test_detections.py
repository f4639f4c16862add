"""The same detections as the reference, at the tolerance that the project promises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from gcnet.models.detector import Detector
from gcnet.ops.decode import read_image
from gcnet.ops.images import fit_size, resize_image
from gcnet.types import Batch, Detections, stack_images
from gcnet.weights.catalog import find
from gcnet.weights.create import create_model

BOX, SCORE, MASK_SHARE, MASK_PIXELS = 0.02, 5e-4, 0.005, 2
THRESHOLD, LIMIT = 0.05, 100

GC4 = "mask-rcnn_r50-syncbn-gcb-r4-c3-c5_fpn_1x_coco"
R50 = "mask-rcnn_r50_fpn_1x_coco"
R101 = "mask-rcnn_r101-gcb-r16-c3-c5_fpn_1x_coco"
X101 = "mask-rcnn_x101-32x4d-syncbn-gcb-r4-c3-c5_fpn_1x_coco"
CASCADE = "cascade-mask-rcnn_x101-32x4d-syncbn-r4-gcb-c3-c5_fpn_1x_coco"
DEFORMABLE = "cascade-mask-rcnn_x101-32x4d-syncbn-dconv-c3-c5-r16-gcb-c3-c5_fpn_1x_coco"


def excused(score: float, scores: np.ndarray, limit: int) -> bool:
    """Whether a detection may be missing on the other side: at the threshold, or at the cut."""
    at_cut = len(scores) == limit and score - scores.min() < SCORE
    return abs(score - THRESHOLD) < SCORE or bool(at_cut)


def compare(ours: Detections, theirs: dict[str, Any], limit: int = LIMIT) -> list[str]:
    """What differs beyond the tolerance, one line each; detections are paired by label and box.

    `limit` is the most detections that the reference gives. Masks are compared where it has some.
    """
    scores, boxes, labels = (np.array(theirs[part]) for part in ("scores", "boxes", "labels"))
    problems, taken = [], set()
    for index, (score, box, label) in enumerate(zip(scores, boxes, labels, strict=True)):
        distance = np.abs(ours.boxes.numpy() - box).max(axis=1)
        near = (ours.labels.numpy() == label) & (distance <= BOX) & ~np.isin(np.arange(len(ours)), [*taken])
        if not near.any():
            if not excused(score, scores, limit):
                problems.append(f"reference {index} (score {score:.4f}) was not found")
            continue
        partner = int(np.where(near, distance, np.inf).argmin())
        taken.add(partner)
        if abs(float(ours.scores[partner]) - score) > SCORE:
            problems.append(f"reference {index}: score {float(ours.scores[partner]):.5f}, not {score:.5f}")
        if "masks" not in theirs:
            continue
        mask = coco_mask.decode({"size": theirs["size"], "counts": theirs["masks"][index].encode()})
        different = int((ours.masks[partner].numpy() != mask.astype(bool)).sum())
        if different > max(MASK_PIXELS, MASK_SHARE * int(mask.sum())):
            problems.append(f"reference {index}: mask differs in {different} of {int(mask.sum())} pixels")
    ours_scores = ours.scores.numpy()
    for index in set(range(len(ours))) - taken:
        if not excused(float(ours_scores[index]), ours_scores, limit):
            problems.append(f"our {index} (score {ours_scores[index]:.4f}) is not the reference's")
    return problems


def batch_of(path: Path, detector: Detector) -> Batch:
    image = read_image(path)
    original = (image.shape[0], image.shape[1])
    size = fit_size(original, detector.spec.image_size)
    return Batch(stack_images([resize_image(image, size)]), [size], [original], [0])


CASES = [
    pytest.param(GC4, ("img0",), id="r50_syncbn_gc4"),
    pytest.param(GC4, ("img1",), id="r50_syncbn_gc4, other image", marks=pytest.mark.slow),
    pytest.param(R50, ("img1",), id="r50"),
    pytest.param(R101, ("img0",), id="r101_gc16", marks=pytest.mark.slow),
    pytest.param(X101, ("img1",), id="x101_syncbn_gc4", marks=pytest.mark.slow),
    pytest.param(CASCADE, ("img0",), id="cascade_x101_syncbn_gc4", marks=pytest.mark.slow),
    pytest.param(DEFORMABLE, ("img0",), id="cascade_x101_syncbn_dcn_gc16", marks=pytest.mark.slow),
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
    fast = detector.optimize()
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
        assert compare(fast.predict_images(pictures[image])[0], theirs) == []


def test_comparison_can_fail() -> None:
    """Each tolerance, on made-up detections."""
    boxes = torch.tensor([[10.0, 10, 60, 60], [70, 70, 90, 95]])
    ours = Detections(
        boxes, torch.tensor([0.9, 0.3]), torch.tensor([1, 2]), torch.ones(2, 28, 28), (100, 120)
    )
    theirs = {
        "boxes": boxes.tolist(),
        "scores": [0.9, 0.3],
        "labels": [1, 2],
        "size": [100, 120],
        "masks": [rle["counts"] for rle in ours.rles()],
    }
    assert compare(ours, theirs) == []
    shift = torch.tensor([[1.5 * BOX, 0, 0, 0], [0, 0, 0, 0]])
    assert "was not found" in compare(replace(ours, boxes=boxes + shift), theirs)[0]
    assert "not 0.9" in compare(replace(ours, scores=torch.tensor([0.9 - 2 * SCORE, 0.3])), theirs)[0]
    assert (
        "not the reference's"
        in compare(ours, {**theirs, "scores": [0.9], "labels": [1], "boxes": boxes[:1]})[0]
    )
    hole = torch.ones(2, 28, 28)
    hole[0, 5:8, 5:8] = 0
    assert "mask differs" in compare(replace(ours, mask_probs=hole), theirs)[0]
    assert compare(ours[:0], theirs | {"scores": [0.9, THRESHOLD]})[1:] == []  # excused at the threshold


def test_preprocessing_is_the_reference_s_to_the_bit(
    golden: Callable[[str], Any], pictures: dict[str, Path]
) -> None:
    detector = create_model("mask_rcnn_tiny")  # the network does not matter here: take the cheapest
    detector.spec = find(GC4).spec
    for image, path in pictures.items():
        theirs = golden("detections.json.gz")[f"{GC4}/{image}"]
        normalised = detector.normalise(batch_of(path, detector))
        assert list(normalised.shape) == theirs["input_shape"]
        assert hashlib.sha256(normalised.numpy().tobytes()).hexdigest() == theirs["sha256"]


OTHERS = [
    pytest.param("mask_r50_gcb_r8_own_choices"),  # anchors, image size, NMS, limit, blocks in c4 and c5 alone
    pytest.param("faster_r50_gcb_r4", marks=pytest.mark.slow),  # boxes alone
    pytest.param("mask_r50_caffe", marks=pytest.mark.slow),  # stride on the 1x1 convolution, BGR
    pytest.param("mask_r50_gcb_r4_agnostic", marks=pytest.mark.slow),
    pytest.param("cascade_mask_r50_gcb_r4_plain_stds", marks=pytest.mark.slow),  # boxes of each class
    pytest.param("mask_r50_dcnv2", marks=pytest.mark.slow),
    pytest.param("mask_r50_pafpn_gcb_r16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", OTHERS)
def test_detections_of_models_that_are_no_rows(
    name: str,
    other_model: Callable[[str], Detector],
    golden: Callable[[str], Any],
    pictures: dict[str, Path],
) -> None:
    detector = other_model(name)
    ours, theirs = detector.predict_images(pictures["img1"])[0], golden("others.json.gz")[name]
    assert len(theirs["scores"]) >= 1
    assert compare(ours, theirs, detector.spec.roi.detections) == []
    assert (ours.mask_probs is None) == ("masks" not in theirs)
