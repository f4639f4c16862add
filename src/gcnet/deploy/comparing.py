"""Compares the results of an export on an image with those of its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8

from gcnet.deploy.programs import Program, ResizedProgram
from gcnet.deploy.runtime import (
    LEAST_SCORE,
    Details,
    ExportedClassifier,
    ExportedDetector,
    as_found,
    prepare,
)
from gcnet.found import Found
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.modes import in_eval_mode
from gcnet.ops.boxes import box_iou
from gcnet.ops.masks import paste_masks

Width = Literal["fp32", "fp16", "int8"]
SAME_IOU = 0.5
# How far an export may be from its model, in pixels and in score.
TOLERANCE: dict[Width, tuple[float, float]] = {
    "fp32": (0.02, 5e-4),
    "fp16": (1.0, 0.02),
    "int8": (float("inf"), 1.0),  # whether that is good enough, AP on your own images says
}
RESIZES = (2.0, 0.05)  # of one that resizes by itself: a sum in another order may round a pixel otherwise
# The share of detections that may be on one side alone: ties at the limit of places, or at the threshold.
UNPAIRED: dict[Width, float] = {"fp32": 0.02, "fp16": 0.1, "int8": 0.5}


@dataclass(frozen=True)
class Comparison:
    """The detections of an export in an image, compared with those of its model.

    Detections of one class whose boxes overlap by more than half are a pair; `missing` and `added` have no
    partner. Of pairs, the largest differences: in pixels, in score, and in pixels of a mask as a share of it.
    """

    detections: int
    missing: int
    added: int
    box_px: float
    score: float
    mask_share: float

    def within(self, precision: Width, *, resizes: bool = False) -> bool:
        """Whether the precision, and a resize in the file, explain the differences."""
        box, score = np.maximum(TOLERANCE[precision], RESIZES if resizes else 0)
        share = max(UNPAIRED[precision], 0.1 if resizes else 0)
        alone = max(self.missing, self.added) <= max(1, share * self.detections)
        return bool(alone and self.box_px <= box and self.score <= score)

    def __str__(self) -> str:
        if not self.detections and not self.added:
            return "nothing was found in the image, so nothing could differ: give --image with objects in it"
        return (
            f"{self.detections} detections, {self.missing} missing and {self.added} added; "
            f"largest differences: box {self.box_px:.2g} px, score {self.score:.2g}, "
            f"mask {self.mask_share:.1%} of its pixels"
        )


@dataclass(frozen=True)
class ClassComparison:
    """The probabilities of an exported classifier, compared with those of its model.

    `classes` were compared; `probability` is the largest difference.
    """

    classes: int
    probability: float

    def within(self, precision: Width, *, resizes: bool = False) -> bool:
        """Whether the precision explains the differences."""
        return self.probability <= TOLERANCE[precision][1]

    def __str__(self) -> str:
        return f"{self.classes} classes; largest difference of a probability {self.probability:.2g}"


def compare(
    model: Detector | Classifier,
    exported: ExportedDetector | ExportedClassifier,
    image: UInt8[np.ndarray, "H W 3"],
) -> Comparison | ClassComparison:
    """Compares the results of an export on an image with those of its model."""
    if isinstance(model, Classifier):
        assert isinstance(exported, ExportedClassifier)
        ours = exported.predict(exported.prepare(image))
        exact = model.predict(model.prepare(image)).cpu().numpy()
        return ClassComparison(exact.shape[1], float(np.abs(ours - exact).max()))
    assert isinstance(exported, ExportedDetector)
    details = exported.details
    if details.resizes or details.size is not None:
        exact = _as_prepared(model, image, details)
    else:
        exact = model.predict_images(image)[0].arrays()
    return apart(exported.predict_images(image)[0], exact)


@torch.no_grad()
def _as_prepared(detector: Detector, image: UInt8[np.ndarray, "H W 3"], details: Details) -> Found:
    """The model's detections in an image that is prepared as for the file.

    Zeros beside it are seen by context blocks, and OpenCV's resize differs by a level here and there.
    """
    prepared, detector = prepare(image, details), in_eval_mode(detector)
    program = ResizedProgram(detector, prepared.original) if details.resizes else Program(detector)
    outputs = program.to(detector.mean.device)(torch.from_numpy(prepared.images).to(detector.mean.device))
    found = as_found([part.cpu().numpy() for part in outputs], prepared, details)
    return found[found.scores > LEAST_SCORE]


def apart(ours: Found, exact: Found) -> Comparison:
    """Pairs the detections of two models on one image."""
    iou = box_iou(torch.from_numpy(exact.boxes), torch.from_numpy(ours.boxes)).numpy()
    iou[exact.labels[:, None] != ours.labels[None]] = 0
    pairs: list[tuple[int, int]] = []
    for index in range(len(exact) if len(ours) else 0):  # best first
        partner = int(iou[index].argmax())
        if iou[index, partner] > SAME_IOU:
            pairs.append((index, partner))
            iou[:, partner] = 0
    first, second = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    mask_share = 0.0
    if exact.mask_probs is not None and ours.mask_probs is not None and pairs:
        drawn = (_drawn(exact[first]), _drawn(ours[second]))
        different = (drawn[0] ^ drawn[1]).sum((1, 2))
        mask_share = float((different / drawn[0].sum((1, 2)).clip(1)).max())
    return Comparison(
        detections=len(exact),
        missing=len(exact) - len(pairs),
        added=len(ours) - len(pairs),
        box_px=float(np.abs(exact.boxes[first] - ours.boxes[second]).max(initial=0)),
        score=float(np.abs(exact.scores[first] - ours.scores[second]).max(initial=0)),
        mask_share=mask_share,
    )


def _drawn(found: Found) -> np.ndarray:
    assert found.mask_probs is not None
    probs, boxes = torch.from_numpy(found.mask_probs), torch.from_numpy(found.frames)
    return paste_masks(probs, boxes, found.image_size).numpy()
