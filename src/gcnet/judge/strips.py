"""Drawings of one image side by side: its ground truth, and the detections of models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gcnet.data.dataset import DataSet, ImageRecord, Instance, LabelledImage
from gcnet.judge.detector import Judged
from gcnet.viz.figures import Figure, draw_window, window_around

CLOSE, SMALLEST = 3, 64.0  # sides of a detection that its close-up shows, and pixels at least


def draw_strip(
    models: Sequence[Judged], dataset: DataSet[ImageRecord], entry: Mapping[str, Any], head: str, text: str
) -> Figure:
    """The image of a report's entry, or the part around its detection, if it is of one.

    Raises GCNetError if the image cannot be read.
    """
    place, row, window = entry["place"], entry.get("detection"), None
    image = dataset.read_image(place)
    if row is not None:
        x1, y1, x2, y2 = entry["box"]
        side = max(CLOSE * max(x2 - x1, y2 - y1), SMALLEST)
        window = window_around(entry["box"], side, image.shape[:2])
    drawn = [draw_window(image, window, dataset.records[place].instances, dataset.class_names)]
    for model in models:
        own = model.shown.found.images == model.evaluator.order.index(place)
        sure = np.flatnonzero(own & (model.shown.scores >= model.threshold)).tolist()
        rows = sure if row is None else [row]
        items, scores = _found(model, rows), model.shown.scores[rows].tolist()
        drawn.append(draw_window(image, window, items, dataset.class_names, scores))
    return Figure.of(drawn, head, text)


def draw_image(dataset: DataSet[LabelledImage], entry: Mapping[str, Any], head: str) -> Figure:
    """The image of a report's entry, under its class. Raises GCNetError if it cannot be read."""
    drawn = draw_window(dataset.read_image(entry["place"]), None, [], dataset.class_names)
    return Figure.of([drawn], head, f"is {entry['class']}; {entry['file_name']}")


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
