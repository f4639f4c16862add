"""Reads folders of masks: one image of numbers for each image, or one black and white image for each object.

In `masks/a.png` of `images/a.jpg` each number is an object; in a black and white mask, each connected area.
Several masks in `masks/a/`, or in `a/masks/` beside `a/images/a.png`, are one object each. A `classes.txt`
names the classes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from gcnet.data.readers.files import Readers, by_folder, read_lines, read_mask
from gcnet.data.source import Source
from gcnet.errors import GCNetError
from gcnet.image_files import is_image
from gcnet.ops.decode import image_size, read_index_mask
from gcnet.ops.segmentations import mask_to_rle

log = logging.getLogger(__name__)

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pngimages")
_OBJECT_MASKS, _CLASS_MASKS = "SegmentationObject", "SegmentationClass"  # of labelme2voc
_MASKS = (
    _OBJECT_MASKS.lower(),
    "masks",
    "mask",
    "pedmasks",
    "labels",
    "label",
    "instances",
    "instance_masks",
    "gt",
    "annotations",
)
_NAMES = ("classes.txt", "class_names.txt")
_NO_CLASSES = ("__ignore__", "_background_", "background")
_ENDING = re.compile(r"[_-]?(masks?|labels?|gt|seg|segmentation|instances?|instanceids)$", re.IGNORECASE)
_MOST_NUMBERS = 2000  # of objects in an image: more are shades, of a JPEG for one
_SPECK = 10  # pixels: smaller parts do not count when the meaning of numbers is guessed


def find_masks(root: Path) -> Readers:
    """Finds images in a folder with a usual name, and their masks in another."""
    if root.is_file():
        return {}
    files = [path for path in sorted(root.rglob("*")) if is_image(path)]
    masks_of = _match(root, files)
    if not masks_of:
        return {}
    names = next((path for name in _NAMES if (path := root / name).is_file()), None)
    lines = read_lines(names) if names else []
    classes = tuple(name for name in lines if name not in _NO_CLASSES)
    return {
        split: partial(_read_masks, root, {image: masks_of[image] for image in part}, classes)
        for split, part in by_folder(root, list(masks_of)).items()
    }


def _match(root: Path, files: Sequence[Path]) -> dict[Path, list[Path]]:
    """The masks of each image that has any."""
    images: list[tuple[tuple[str, ...], Path]] = []
    labels: dict[tuple[str, ...], list[Path]] = {}  # by folder and stem
    folders: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        parts = path.relative_to(root).parts[:-1]
        if any(part.lower() in _IMAGES for part in parts):
            images.append((_without(parts, _IMAGES), path))
        elif any(part.lower() in _MASKS for part in parts):
            where = _without(parts, _MASKS)
            labels.setdefault((*where, _ENDING.sub("", path.stem)), []).append(path)
            folders.setdefault(where, []).append(path)
    counts = Counter(where for where, _ in images)
    found = {}
    for where, path in images:
        masks = labels.get((*where, path.stem)) or folders.get((*where, path.stem))
        if not masks and where and counts[where] == 1:
            masks = folders.get(where)
        if masks:
            found[path] = masks
    return found


def _without(parts: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in parts if part.lower() not in names)


@dataclass
class _Found:
    """What is in the masks of an image: areas with their numbers; how many numbers are several areas each."""

    size: tuple[int, int]
    objects: list[tuple[int, dict[str, Any]]]
    scattered: int = 0


def _read_masks(root: Path, masks_of: dict[Path, list[Path]], classes: tuple[str, ...]) -> Source:
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(image_size, masks_of))
        fitting = list(pool.map(_of_size, masks_of.values(), sizes))
        if left_out := sum(map(len, masks_of.values())) - sum(map(len, fitting)):
            log.warning("%s: %d masks are not of their image's size; left out", root, left_out)
        masks_of = dict(zip(masks_of, fitting, strict=True))
        numbers = list(pool.map(_numbers, [masks[0] for masks in fitting if len(masks) == 1]))
        binary = bool(numbers) and len(set().union(*numbers)) == 1
        by_class = any(_OBJECT_MASKS in path.parts for paths in masks_of.values() for path in paths)
        by_area = not by_class and (binary or len(classes) > 1)
        found = list(pool.map(partial(_objects, by_area=by_area), fitting, sizes))
    if not (classes or by_area or by_class) and sum(one.scattered for one in found) * 2 > sum(
        map(len, numbers)
    ):
        raise GCNetError(
            f"{root}: most numbers in its masks are of several areas: are they classes? Then put a "
            "classes.txt there, with the names of 1, 2, ..., a line each; if objects, with the name of all"
        )
    if binary and by_area:
        log.warning("%s: its masks are black and white; each area that hangs together is an object", root)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id, (path, one) in enumerate(zip(masks_of, found, strict=True), start=1):
        height, width = one.size
        images.append({"id": id, "file_name": str(path.absolute()), "height": height, "width": width})
        for place, (number, rle) in enumerate(one.objects):
            entry = {"id": f"{path.stem}:{place}", "image_id": id, "category_id": _name(number, classes)}
            annotations.append(entry | {"segmentation": rle})
    return Source.of_names(root, root, images, annotations, classes)


def _name(number: int, classes: tuple[str, ...]) -> str:
    if len(classes) < 2:
        return classes[0] if classes else "object"
    number = number & 255 if number == (number & 255) * 0x010101 else number  # gray, stored as colours
    return classes[number - 1] if number <= len(classes) else f"number {number}"


def _of_size(masks: Sequence[Path], size: tuple[int, int]) -> list[Path]:
    """Those of an image's size: a few bytes can say any other, and would take memory for it."""
    return [mask for mask in masks if image_size(mask) == size]


def _numbers(path: Path) -> set[int]:
    """The numbers in a mask, without that of the background, 0."""
    numbers = set(np.unique(read_index_mask(path)).tolist()) - {0}
    if len(numbers) > _MOST_NUMBERS:
        raise GCNetError(f"{path} has {len(numbers)} values: no mask; save masks as PNG, without smoothing")
    return numbers


def _objects(paths: Sequence[Path], size: tuple[int, int], *, by_area: bool) -> _Found:
    if len(paths) > 1:  # one an object
        areas = (read_index_mask(path) != 0 for path in paths)
        return _Found(size, [(1, mask_to_rle(area)) for area in areas if area.any()])
    found = _Found(size, [])
    mask = read_index_mask(paths[0]) if paths else np.zeros((0, 0), np.uint8)
    for number in np.unique(mask).tolist():
        if number == 0:
            continue
        area = mask == number
        count, labels, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
        found.scattered += int((stats[1:, cv2.CC_STAT_AREA] > _SPECK).sum()) > 1
        parts = (labels == label for label in range(1, count)) if by_area else [area]
        found.objects += [(_class_number(paths[0], area, number), mask_to_rle(part)) for part in parts]
    return found


def _class_number(path: Path, area: Bool[np.ndarray, "H W"], number: int) -> int:
    """The most frequent number there in the mask of classes that goes with one of objects."""
    if _OBJECT_MASKS not in path.parts:
        return number
    place = path.parts.index(_OBJECT_MASKS)
    other = Path(*path.parts[:place], _CLASS_MASKS, *path.parts[place + 1 :])
    classes = read_mask(other, (area.shape[0], area.shape[1]))
    if classes is None:
        raise GCNetError(f"{other} is not of the size of {path}; export both again")
    numbers, counts = np.unique(classes[area], return_counts=True)
    return int(numbers[counts.argmax()])
