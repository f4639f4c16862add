"""Small COCO data sets on disk for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}]


def annotation(
    id: int, image_id: int, *, box: tuple[float, ...] = (10, 8, 20, 16), **entries: Any
) -> dict[str, Any]:
    """A rectangular object."""
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    values = {
        "id": id,
        "image_id": image_id,
        "category_id": 4,
        "bbox": list(box),
        "area": w * h,
        "iscrowd": 0,
    }
    return values | {"segmentation": [polygon]} | entries


def content(sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """One object in each image; `sizes` are (height, width), image ids start at 100."""
    images = [
        {"id": 100 + i, "file_name": f"{i}.png", "height": height, "width": width}
        for i, (height, width) in enumerate(sizes)
    ]
    annotations = [annotation(i, 100 + i) for i in range(len(sizes))]
    return {"images": images, "annotations": annotations, "categories": [dict(c) for c in CATEGORIES]}


def write_images(folder: Path, values: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in values["images"]:
        shape = (image["height"], image["width"], 3)
        noise = np.random.default_rng(image["id"]).integers(0, 256, shape, np.uint8)
        cv2.imwrite(str(folder / image["file_name"]), noise)


def write_split(folder: Path, values: dict[str, Any]) -> Path:
    """The one-folder-a-split layout; returns the annotation file."""
    write_images(folder, values)
    path = folder / "_annotations.coco.json"
    path.write_text(json.dumps(values))
    return path
