"""Drawings of one image side by side: its ground truth, and the detections of models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gcnet.data.dataset import DataSet, ImageRecord, Instance, LabelledImage
from gcnet.errors import GCNetError
from gcnet.judge.detector import Judged
from gcnet.viz.figures import Figure, draw_window

CLOSE = 3  # sides of a detection that its close-up shows


def draw_strip(
    models: Sequence[Judged],
    dataset: DataSet[ImageRecord],
    place: int,
    head: str,
    text: str,
    detection: Mapping[str, Any] | None = None,
) -> Figure | None:
    """An image, or the part around one detection; None if it cannot be read."""
    record = dataset.records[place]
    try:
        image = dataset.read_image(place)
    except GCNetError:
        return None
    window = _around(detection["box"], record) if detection else (0, 0, record.width, record.height)
    truth = [item for item in record.instances if item.usable]
    drawn = [draw_window(image, window, truth, dataset.class_names)]
    for model in models:
        own = model.shown.found.images == model.order.index(place)
        sure = np.flatnonzero(own & (model.shown.scores >= model.threshold)).tolist()
        rows = [detection["detection"]] if detection else sure
        items, scores = _found(model, rows), model.shown.scores[rows].tolist()
        drawn.append(draw_window(image, window, items, dataset.class_names, scores))
    return Figure.of(drawn, head, text)


def draw_image(dataset: DataSet[LabelledImage], place: int, head: str, text: str) -> Figure | None:
    """An image of a class; None if it cannot be read."""
    try:
        image = dataset.read_image(place)
    except GCNetError:
        return None
    window = (0, 0, image.shape[1], image.shape[0])
    return Figure.of([draw_window(image, window, [], dataset.class_names)], head, text)


def _around(box: Sequence[float], record: ImageRecord) -> tuple[float, ...]:
    """A window around a box, inside of the image."""
    x1, y1, x2, y2 = box
    frame = np.array([record.width, record.height])
    side = np.minimum(max(CLOSE * max(x2 - x1, y2 - y1), 64.0), frame)
    start = (np.array([x1 + x2, y1 + y2]) / 2 - side / 2).clip(0, frame - side)
    return *start.tolist(), *(start + side).tolist()


def _found(judged: Judged, rows: Sequence[int]) -> list[Instance]:
    """Detections as what can be drawn."""
    found = judged.shown.found
    items = []
    for row in rows:
        x, y, width, height = found.boxes[row].tolist()
        mask = {"size": found.sizes[row].tolist(), "counts": found.masks[row]} if found.masks else []
        box = (x, y, x + width, y + height)
        items.append(Instance(row, int(found.classes[row]), box, mask, width * height, crowd=False))
    return items


def plain(value: Any) -> Any:
    """A value for JSON: None in place of NaN."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
