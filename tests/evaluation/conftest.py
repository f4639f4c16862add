from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from gcnet.data.readers.coco import CocoDataset
from gcnet.models.detector import Detector
from gcnet.models.spec import ModelSpec
from gcnet.types import Batch, Detections

sys.path.insert(0, str(Path(__file__).parent))  # for hostile_sets

# Category ids with gaps and out of order in the file; nothing is annotated as "absent".
CATEGORIES = [{"id": 90, "name": "ring"}, {"id": 3, "name": "star"}, {"id": 7, "name": "absent"}]
SIZES = [(120, 160), (160, 120), (200, 200), (90, 150), (120, 160), (64, 64)]


def annotations(seed: int) -> list[dict[str, Any]]:
    """Rectangles: polygons, some crowds as uncompressed RLE; ids start at 0; the last image has none."""
    rng = np.random.default_rng(seed)
    entries = []
    for image_id, (height, width) in list(enumerate(SIZES, start=10))[:-1]:
        for _ in range(4):
            w, h = rng.integers(12, (width // 2, height // 2))
            x, y = rng.integers(0, (width - w, height - h))
            x, y, w, h = (int(v) for v in (x, y, w, h))
            crowd = int(rng.random() < 0.15)
            entry: dict[str, Any] = {"id": len(entries), "image_id": image_id, "iscrowd": crowd}
            entry |= {"bbox": [x, y, w, h], "category_id": int(rng.choice([90, 3]))}
            if crowd:
                mask = np.zeros((height, width), np.uint8)
                mask[y : y + h, x : x + w] = 1
                runs = np.flatnonzero(np.diff(mask.ravel("F"), prepend=0, append=2)).tolist()
                counts = np.diff([0, *runs]).tolist()
                entry["segmentation"] = {"size": [height, width], "counts": counts}
            else:
                entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            entry["area"] = float(w * h)
            entries.append(entry)
    return entries


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., CocoDataset]:
    def make(seed: int = 0, edit: Callable[[dict[str, Any]], None] | None = None) -> CocoDataset:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        images = []
        for image_id, (height, width) in enumerate(SIZES, start=10):
            name = f"{image_id}.png"
            cv2.imwrite(str(folder / name), np.full((height, width, 3), image_id, np.uint8))
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        content = {"images": images, "categories": CATEGORIES, "annotations": annotations(seed)}
        if edit is not None:
            edit(content)
        path = folder / "_annotations.coco.json"
        path.write_text(json.dumps(content))
        return CocoDataset.load(path, folder)

    return make


@pytest.fixture
def detections() -> Callable[..., Detections]:
    return look_up


@pytest.fixture
def oracle() -> type[Detector]:
    return Oracle


def look_up(dataset: CocoDataset, image_id: int | str, *, jitter: float = 0.0, seed: int = 0) -> Detections:
    """The annotated objects, moved by up to `jitter` pixels and with some invented; crowds come twice."""
    index, record = next((i, record) for i, record in enumerate(dataset.records) if record.id == image_id)
    rng = np.random.default_rng((seed, index))
    size = (record.height, record.width)
    objects = [(i.box, i.label) for i in record.instances if i.segmentation for _ in range(1 + int(i.crowd))]
    if jitter:
        objects += [((5.0, 6.0, 40.0, 50.0), int(rng.integers(3))) for _ in range(3)]
        objects += [objects[0], objects[-1]]
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    boxes += rng.uniform(-jitter, jitter, boxes.shape).astype(np.float32)
    boxes = boxes.clip(0, [size[1], size[0], size[1], size[0]]).astype(np.float32)
    probs = np.ones((len(boxes), 14, 14), np.float32)
    if jitter:
        probs[:, :3, :3] = rng.uniform(0, 1, (len(boxes), 3, 3))
    scores = np.sort(rng.uniform(0.1, 1, len(boxes)).astype(np.float32))[::-1].copy()
    labels = np.array([label for _, label in objects], np.int64)
    return Detections(*map(torch.from_numpy, (boxes, scores, labels, probs)), size)


class Oracle(Detector):
    """Looks its detections up instead of computing them."""

    def __init__(self, dataset: CocoDataset, class_names: tuple[str, ...] | None = None) -> None:
        nn.Module.__init__(self)
        self.spec = ModelSpec("oracle", class_names or dataset.class_names, image_size=(96, 64))
        self.dataset, self.weight = dataset, nn.Parameter(torch.zeros(1))
        self.seen: list[int] = []

    def predict(self, batch: Batch, *, score_threshold: float = 0.05) -> list[Detections]:
        self.seen += [1]
        assert not self.training
        assert not torch.is_grad_enabled()
        return [look_up(self.dataset, image_id) for image_id in batch.image_ids]
