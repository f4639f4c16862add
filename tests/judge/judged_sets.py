"""A small data set, and what is found in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gcnet.data.dataset import DataSet, ImageRecord, Instance
from gcnet.evaluation.results import ImageResults

NAMES = ("<i>ant</i>", "bee", "cow")


def draw_scene(folder: Path) -> tuple[DataSet[ImageRecord], list[ImageResults]]:
    """Eight images with two objects each; one of each is found, and in the first an ant where nothing is."""
    rng = np.random.default_rng(0)
    records, results = [], []
    for id in range(8):
        path = folder / f"{id}.png"
        cv2.imwrite(str(path), rng.integers(0, 255, (80, 100, 3), np.uint8))
        boxes = [(5.0 + id, 10.0, 35.0, 40.0), (50.0, 30.0, 90.0, 70.0)]
        items = tuple(Instance(2 * id + i, i, box, [], 900.0, crowd=False) for i, box in enumerate(boxes))
        records.append(ImageRecord(id, path, 100, 80, items))
        x1, y1, x2, y2 = boxes[id % 2]
        found = [[x1, y1, x2 - x1, y2 - y1], *([[60.0, 0.0, 20.0, 20.0]] if id == 0 else [])]
        labels = [id % 2, *([0] if id == 0 else [])]
        scores = np.array([0.9, 0.97][: len(found)])
        results.append(ImageResults(id, (80, 100), np.array(found), scores, np.array(labels), None))
    return DataSet(folder, records, NAMES, (0, 1, 2)), results
