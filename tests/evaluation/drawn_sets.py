"""A random set of boxes, and detections that are some of them, moved, and some of them of another class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gcnet.data.dataset import DataSet, ImageRecord, Instance
from gcnet.evaluation.coco_ap import CocoEvaluator
from gcnet.evaluation.results import ImageResults

SIDE = 640


def draw_set(
    images: int = 20, *, each: int = 30, objects: int = 8, classes: int = 4, seed: int = 0
) -> tuple[DataSet[ImageRecord], list[ImageResults]]:
    """`each` detections and `objects` objects in an image."""
    rng = np.random.default_rng(seed)
    records, results = [], []
    for image in range(images):
        sides, corners = rng.uniform(10, 200, (objects, 2)), rng.uniform(0, 400, (objects, 2))
        labels = rng.integers(0, classes, objects)
        boxes = np.concatenate([corners, corners + sides], 1)
        instances = tuple(
            Instance(
                objects * image + i, int(labels[i]), tuple(boxes[i]), [], float(sides[i].prod()), crowd=False
            )
            for i in range(objects)
        )
        records.append(ImageRecord(image, Path(f"{image}.jpg"), SIDE, SIDE, instances))
        of = rng.integers(0, objects, each)
        moved = np.concatenate([corners[of], sides[of]], 1) + rng.normal(0, 8, (each, 4))
        moved[:, 2:] = moved[:, 2:].clip(2)
        found = np.where(rng.random(each) < 0.8, labels[of], rng.integers(0, classes, each))
        scores = np.sort(rng.random(each))[::-1].round(7)
        results.append(ImageResults(image, (SIDE, SIDE), moved, scores, found.astype(np.int64), None))
    names = tuple(f"c{label}" for label in range(classes))
    return DataSet(Path("drawn"), records, names, tuple(range(classes))), results


def evaluator_of(dataset: DataSet[ImageRecord], results: list[ImageResults]) -> CocoEvaluator:
    """What scores the results."""
    return CocoEvaluator(dataset, results)
