"""Random sets that are made to be hard to score, and pycocotools' figures for them.

`python tests/evaluation/hostile_sets.py 500` compares as many sets. Among them are crowds, equal scores and
equal overlaps, areas on the bounds of small, medium and large, images and classes without objects, nothing
found at all, more than 255 and more than 1,000 detections of an image, boxes without area, and annotations of
images and categories that are not listed.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gcnet.data.annotations import build
from gcnet.data.source import Source
from gcnet.evaluation.coco_ap import CocoEvaluator, Metrics
from gcnet.evaluation.results import CocoResults, ImageResults

SIDE = 200
SIDES = np.array([1, 2, 7, 16, 31, 32, 33, 64, 95, 96, 97, 128])  # 32 and 96 are bounds of size classes
LIMITS = (100, 100, 5, 300, 1000)
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}
coco_mask: Any = mask


class HostileSet:
    """Annotations and detections, as plain values; a function of the seed."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = np.random.default_rng([7, seed])
        self.limit = LIMITS[seed % len(LIMITS)]
        self.ids = rng.permutation(rng.integers(1, 4) * np.arange(1, 6) + 3).tolist()
        self.categories = [{"id": int(id), "name": f"c{id}"} for id in rng.permutation([2, 3, 5, 90])]
        self.images = [{"id": id, "file_name": f"{id}.png", "height": SIDE, "width": SIDE} for id in self.ids]
        listed = [category["id"] for category in self.categories]
        self.used = rng.choice(listed, rng.integers(1, 4), replace=False).tolist()
        self.annotations = [self._annotation(id + 1) for id in range(rng.integers(0, 40))]
        for entry, change in zip(self.annotations, ({"image_id": 999}, {"category_id": 77}), strict=False):
            if len(self.annotations) > 5:
                entry |= change
        self.found = [self._detections(id, listed) for id in self.ids[: rng.integers(0, 6)]]

    def _annotation(self, id: int) -> dict[str, Any]:
        rng, box = self.rng, self._box()
        crowd = int(rng.random() < 0.2)
        x, y, w, h = box
        rle = _rle(tuple(box))
        outline = {"size": rle["size"], "counts": rle["counts"].decode()} if crowd else None
        return {
            "id": id,
            "image_id": int(rng.choice(self.ids[:4])),
            "category_id": int(rng.choice(self.used)),
            "bbox": box,
            "area": float(rng.choice([w * h, 1024, 9216, 1023.5])),
            "iscrowd": crowd,
            "segmentation": outline or [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }

    def _box(self) -> list[int]:
        w, h = self.rng.choice(SIDES, 2).tolist()
        x, y = (self.rng.integers(0, [SIDE - w, SIDE - h], endpoint=True) // 8 * 8).tolist()
        return [x, y, w, h]

    def _detections(self, image_id: int, listed: Sequence[int]) -> ImageResults:
        rng = self.rng
        count = int(rng.choice([0, 5, 60, 300, 1100], p=[0.1, 0.3, 0.3, 0.2, 0.1]))
        boxes, categories = [], []
        own = [entry for entry in self.annotations if entry["image_id"] == image_id]
        for _ in range(count):
            box, category = self._box(), int(rng.choice(listed))
            if own and rng.random() < 0.7:
                entry = own[int(rng.integers(len(own)))]
                moved = np.array(entry["bbox"]) + rng.choice([0, 0, 0, 1, -1, 4], 4)
                low = moved[:2].clip(0, SIDE)
                box = [*low.tolist(), *np.minimum(moved[2:].clip(0), SIDE - low).tolist()]
                category = entry["category_id"] if entry["category_id"] in listed else category
            boxes.append(box)
            categories.append(category)
        levels = int(rng.choice([2, 20, 10**6]))
        scores = np.sort(rng.integers(1, levels + 1, count) / levels)[::-1].copy()
        counts = [_rle(tuple(box))["counts"] for box in boxes]
        array = np.array(boxes, np.float64).reshape(-1, 4)
        return ImageResults(image_id, (SIDE, SIDE), array, scores, np.array(categories, np.int64), counts)

    def metrics(self, folder: Path) -> Metrics:
        """Our own figures."""
        for image in self.images:
            (folder / image["file_name"]).touch()
        source = Source(folder, folder, self.images, self.annotations, self.categories)
        return CocoEvaluator(build(source), self.found, self.limit).compute()

    def reference(self, kind: str) -> COCOeval:
        """pycocotools' precision and recall of `kind` "bbox" or "segm"."""
        drop = "bbox" if kind == "segm" else "segmentation"
        results = [{k: v for k, v in entry.items() if k != drop} for entry in CocoResults(self.found)]
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "info": {},
                "images": self.images,
                "annotations": self.annotations,
                "categories": self.categories,
            }
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(results) if results else COCO(), kind)
            evaluation.params.imgIds = sorted(self.ids)
            evaluation.params.catIds = sorted(category["id"] for category in self.categories)
            evaluation.params.maxDets = [1, min(10, self.limit - 1), self.limit]  # sorted there
            evaluation.evaluate()
            evaluation.accumulate()
            if self.limit == 100:
                evaluation.summarize()
        return evaluation


_rles: dict[tuple[int, ...], dict[str, Any]] = {}


def _rle(box: tuple[int, ...]) -> dict[str, Any]:
    if box not in _rles:
        x, y, w, h = box
        drawn = np.zeros((SIDE, SIDE), np.uint8, order="F")
        drawn[y : y + h, x : x + w] = 1
        _rles[box] = coco_mask.encode(drawn)
    return _rles[box]


def summary(evaluation: COCOeval, limit: int, k: int | slice = slice(None)) -> dict[str, float]:
    """The twelve figures as `summarize` has them, of all classes or of class `k` by its id's order."""
    precision, recall = evaluation.eval["precision"][:, :, k], evaluation.eval["recall"][:, k]
    figures = {"AP": precision[..., 0, 2], "AP50": precision[0, ..., 0, 2], "AP75": precision[5, ..., 0, 2]}
    figures |= {f"AP{name}": precision[..., a, 2] for name, a in AREAS.items() if name}
    figures |= {f"AR{most}": recall[..., 0, m] for m, most in enumerate((1, 10)) if most < limit}
    figures |= {f"AR{limit}": recall[..., 0, 2]}
    figures |= {f"AR{name}": recall[..., a, 2] for name, a in AREAS.items() if name}
    present = {name: values[values > -1] for name, values in figures.items()}
    return {name: float(values.mean()) if values.size else -1.0 for name, values in present.items()}


def differences(seed: int, folder: Path) -> list[str]:
    """The figures of a set that are not pycocotools', by more than 1e-12."""
    hostile = HostileSet(seed)
    ours, wrong = hostile.metrics(folder), []
    for kind, name, own in (("bbox", "box", ours.box), ("segm", "mask", ours.mask)):
        evaluation = hostile.reference(kind)
        expected = summary(evaluation, hostile.limit)
        if hostile.limit == 100:
            assert np.abs(evaluation.stats - list(expected.values())).max() < 1e-12
        wrong += _compare(f"{seed} {name}", own, expected)
        for k, id in enumerate(sorted(category["id"] for category in hostile.categories)):
            figures = summary(evaluation, hostile.limit, k)
            values = ours.per_class[f"c{id}"]
            kept = {key: value for key, value in figures.items() if f"{name}_{key}" in values}
            assert len(kept) == 7
            mine = {key: values[f"{name}_{key}"] for key in kept}
            wrong += _compare(f"{seed} {name} c{id}", mine, kept)
    return wrong


def _compare(where: str, own: dict[str, float], expected: dict[str, float]) -> list[str]:
    assert own.keys() == expected.keys()
    return [
        f"{where} {key}: {own[key]} and not {expected[key]}"
        for key in own
        if not abs(own[key] - expected[key]) < 1e-12
    ]


def main() -> None:
    """Compares as many sets as the first argument says."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(int(sys.argv[1])):
            wrong += differences(seed, Path(folder))
    print(*wrong[:20], f"{sys.argv[1]} sets, {len(wrong)} figures differ", sep="\n")


if __name__ == "__main__":
    main()
