"""Reads LabelMe: a JSON file for each image, with its `shapes`."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import head_of, object_of, objects_in, read_object, readable
from gcnet.data.readers.shapes import ellipse, grouped, place_mask
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source
from gcnet.image_files import MAX_PIXELS
from gcnet.ops.decode import as_rgb_array
from gcnet.ops.segmentations import coco_mask, crop_segmentation, parse_segmentation, segmentation_to_rle

_NO_OBJECTS = ("__ignore__", "_background_")


def find_labelme(root: Path) -> Readers:
    """Finds a JSON file for each image, in a folder for each split or all in one."""
    return file_an_image(root, ".json", is_labelme, _read_labelme)


def is_labelme(path: Path) -> bool:
    """Whether it is a LabelMe file, by its keys."""
    head = head_of(path)
    return b'"shapes"' in head or (b'"imageData"' in head and b'"imagePath"' in path.read_bytes())


def _read_labelme(folder: Path, files: Sequence[Path]) -> Source:
    entries = Entries()
    for path, content in readable(files, read_object):
        image = entries.image_beside(path, content.get("imagePath"))
        entries.add_image(image, content.get("imageWidth"), content.get("imageHeight"))
        for (key, name), shapes in grouped(objects_in(content.get("shapes")), _group).items():
            if name not in _NO_OBJECTS:
                entries.add_object(f"{path.name}:{key}", name, object_of(_object, shapes, content))
    return entries.source(folder, folder)


def _group(shape: dict[str, Any]) -> tuple[Any, str]:
    label = shape.get("label")
    return shape.get("group_id"), "" if label is None else str(label)


def _object(shapes: Sequence[dict[str, Any]], content: dict[str, Any]) -> dict[str, Any]:
    """Polygons, rectangles and circles of one object, which may have several parts; or masks, and these."""
    polygons, masks = [], []
    for shape in shapes:
        points, kind = shape.get("points") or [], shape.get("shape_type", "polygon")
        if kind == "mask" and shape.get("mask"):
            masks.append(_mask(shape["mask"], points, _size(content)))
        elif kind == "rectangle" and len(points) == 2:
            (x1, y1), (x2, y2) = points
            polygons.append([x1, y1, x2, y1, x2, y2, x1, y2])
        elif kind == "circle" and len(points) == 2:
            (x, y), edge = points
            radius = math.dist((x, y), edge)
            polygons.append(ellipse(x, y, radius, radius))
        elif kind in ("polygon", "rectangle", "rotation"):  # points and lines have no area
            polygons.append([value for point in points for value in point])
    if not masks:
        return {"segmentation": polygons}
    if polygons:
        size = _size(content)
        outlines, _ = parse_segmentation(polygons, *size)
        masks.append(segmentation_to_rle(crop_segmentation(outlines, size), *size))
    return {"segmentation": coco_mask.merge(masks)}


def _size(content: dict[str, Any]) -> tuple[int, int]:
    return int(content["imageHeight"]), int(content["imageWidth"])


def _mask(encoded: str, points: Sequence[Sequence[float]], size: tuple[int, int]) -> dict[str, Any]:
    most = min(size[0] * size[1], MAX_PIXELS)  # it is a part of the image
    mask = as_rgb_array(base64.b64decode(encoded), max_pixels=most)[..., 0]
    x, y = map(round, points[0])
    return place_mask((mask > 0).astype(np.uint8), x, y, size)["segmentation"]
