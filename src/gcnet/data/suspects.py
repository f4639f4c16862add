"""The objects that a person should look at first.

N objects. Boxes are xyxy in pixels of their images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from gcnet.data.survey import TINY, USUAL, Objects
from gcnet.ops.boxes import box_iou

HUGE = 0.95  # of the image
LOOSE = 0.6  # IoU of a box and the box of its outline, below which it is suspect
INSIDE = 0.8  # of a box, at least, that should be in the image
TWICE = 0.9  # IoU of two boxes that may be one object
MOST_COMPARED = 1000  # objects of one image that are compared with each other


@dataclass(frozen=True, slots=True)
class Suspect:
    """Row `row` of a survey's `Objects`, and why; `badness` orders the suspects of a kind."""

    row: int
    kind: str
    words: str
    badness: float


def find_suspects(objects: Objects, class_names: Sequence[str]) -> list[Suspect]:
    """The objects that are tiny, huge, annotated twice, or whose box is odd; of each kind the worst first."""
    if not len(objects):
        return []
    found = [*_odd_boxes(objects), *_odd_sizes(objects), *_twice(objects, class_names)]
    return sorted(found, key=lambda suspect: (suspect.kind, -suspect.badness))


def _odd_boxes(objects: Objects) -> Iterator[Suspect]:
    for row in np.flatnonzero(objects.mended).tolist():
        yield Suspect(row, "box mended", "its box was another object's; that of its outline is taken", 1.0)
    frame = np.concatenate([np.zeros_like(objects.size), objects.size[:, ::-1]], 1).astype(float)
    inside = _common(objects.box, frame) / _area(objects.box)
    for row in np.flatnonzero(inside < INSIDE).tolist():
        words = f"{1 - inside[row]:.0%} of its box is outside the image"
        yield Suspect(row, "box outside", words, 1 - float(inside[row]))
    common = _common(objects.box, objects.bounds)
    overlap = common / np.maximum(_area(objects.box) + _area(objects.bounds) - common, 1e-9)
    for row in np.flatnonzero(overlap < LOOSE).tolist():
        words = f"box and outline overlap by {overlap[row]:.0%} only"
        yield Suspect(row, "box against outline", words, 1 - float(overlap[row]))


def _odd_sizes(objects: Objects) -> Iterator[Suspect]:
    sides = objects.side_in(USUAL)
    for row in np.flatnonzero(sides < TINY).tolist():
        x1, y1, x2, y2 = objects.box[row]
        words = f"{x2 - x1:.0f} x {y2 - y1:.0f} pixels of {objects.size[row, 1]} x {objects.size[row, 0]}"
        yield Suspect(row, "tiny", words, 1 / float(sides[row]))
    share = _area(objects.box) / objects.size.prod(1)
    for row in np.flatnonzero(share >= HUGE).tolist():
        yield Suspect(row, "huge", f"{share[row]:.0%} of the image", float(share[row]))


def _twice(objects: Objects, class_names: Sequence[str]) -> Iterator[Suspect]:
    """The second of two nearly equal boxes in one image, with the class of the first."""
    changes = np.flatnonzero(np.diff(objects.image) | np.diff(objects.split)) + 1
    for start, end in zip([0, *changes.tolist()], [*changes.tolist(), len(objects)], strict=True):
        boxes = torch.from_numpy(objects.box[start : min(end, start + MOST_COMPARED)])
        if len(boxes) < 2:
            continue
        iou = box_iou(boxes, boxes).triu(1)
        best, first = iou.max(0)
        for later in torch.nonzero(best >= TWICE).flatten().tolist():
            row, earlier = start + later, start + int(first[later])
            name = class_names[objects.label[earlier]]
            same = objects.label[row] == objects.label[earlier]
            words = f"the box of another {name}" if same else f"also annotated as {name}"
            yield Suspect(row, "twice" if same else "two classes", words, float(best[later]))


def _area(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)


def _common(boxes: Float[np.ndarray, "N 4"], others: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    """The intersection area of the boxes in each row."""
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    return (high - low).clip(0).prod(1)
