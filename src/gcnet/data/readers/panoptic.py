"""Reads COCO's panoptic format: a PNG for each image, whose colours are segments. Things are the objects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.readers.coco import folder_of, image_folders
from gcnet.data.readers.files import (
    THREADS,
    folder_with,
    head_of,
    object_of,
    objects_in,
    read_object,
    readable,
)
from gcnet.data.readers.shapes import read_mask
from gcnet.data.readers.splits import Readers, file_a_split
from gcnet.data.source import Source, known
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import mask_to_rle


def find_panoptic(root: Path) -> Readers:
    """`panoptic_train2017.json` in `annotations/` or in the folder, with the PNGs in a folder of its name."""
    return file_a_split(root, "json", _has_masks, _read_panoptic)


def is_panoptic(path: Path) -> bool:
    """Whether it is a panoptic file, by its name or a key that no other format has."""
    return path.suffix == ".json" and (
        path.name.startswith("panoptic_") or b'"segments_info"' in head_of(path, 1 << 20)
    )


def _has_masks(path: Path) -> bool:
    return is_panoptic(path) and path.with_suffix("").is_dir()


def _read_panoptic(path: Path, root: Path, _: str) -> Source:
    content = read_object(path)
    images, annotated, categories = (
        objects_in(content.get(key)) for key in ("images", "annotations", "categories")
    )
    things = [category for category in categories if category.get("isthing", 1)]
    ids = {category.get("id") for category in things if isinstance(category.get("id"), int)}
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = {str(image.get("id")): (image.get("height"), image.get("width")) for image in images}
        found = readable(annotated, partial(_objects, path.with_suffix(""), ids, sizes), pool.map)
    kept = {str(entry.get("image_id")) for entry, _ in found}
    lost = {str(entry.get("image_id")) for entry in annotated} - kept  # nobody knows what is in them
    images = [image for image in images if str(image.get("id")) not in lost]
    annotations = [one for _, objects in found for one in objects]
    folders = image_folders(folder_of(path), path) or [root]
    folder = folder_with(folders, [image.get("file_name") for image in images])
    return Source(path, folder, images, annotations, things)


def _objects(
    masks: Path, ids: set[Any], sizes: dict[str, tuple[Any, Any]], annotation: dict[str, Any]
) -> list[dict[str, Any]]:
    """The things of an image. Raises GCNetError where its mask cannot be read."""
    segments = objects_in(annotation.get("segments_info"))
    wanted = [
        {key: segment.get(key) for key in ("id", "category_id", "iscrowd")}
        for segment in segments
        if known(segment.get("category_id"), ids) is not None
    ]
    if not wanted:
        return []
    file = masks / Path(str(annotation.get("file_name"))).name
    mask = read_mask(file, sizes.get(str(annotation.get("image_id")), (0, 0)))
    if mask is None:
        raise GCNetError(f"{file} is damaged, missing or not of its image's size; restore it")
    image = {"image_id": annotation.get("image_id")}
    return [one | image | object_of(_outline, mask, one["id"]) for one in wanted]


def _outline(mask: np.ndarray, id: Any) -> dict[str, Any]:
    found = mask == int(id)
    return {"segmentation": mask_to_rle(found)} if found.any() else {}
