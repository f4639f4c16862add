"""Reading a COCO instance file: what is in it, and what is wrong with it.

Strict where a file contradicts itself (the error names file and id), tolerant where single annotations are
merely of no use: those are left out, counted, and reported in one line. Images are not opened.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from gcnet.errors import GCNetError
from gcnet.ops.segmentations import Segmentation, parse_segmentation, segmentation_area

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object, in pixels of the original image.

    `box` is xyxy as annotated (not clipped to the image); `label` indexes the data set's class names;
    `area` is the annotation's own, which COCO's size classes go by; `crowd` marks a region of many
    objects, which training leaves out and evaluation ignores.
    """

    id: int | str
    label: int
    box: tuple[float, float, float, float]
    segmentation: Segmentation
    area: float
    crowd: bool


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set and what is annotated in it. `width` and `height` are the JSON's."""

    id: int | str
    path: Path
    width: int
    height: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Source:
    """A COCO file as parsed, its frame checked but not its annotations."""

    path: Path
    image_dir: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, dict[str, Any]]  # by id, in ascending order

    def counts(self) -> Counter[str]:
        """Annotations of each category, by name."""
        ids = [annotation.get("category_id") for annotation in self.annotations]
        return Counter(self.categories[id]["name"] for id in ids if _is_id(id) and id in self.categories)


def read_source(json_path: str | Path, image_dir: str | Path) -> Source:
    """Parse a COCO file and check its frame: lists of objects, categories with ids and names."""
    path, image_dir = Path(json_path), Path(image_dir)
    if not image_dir.is_dir():
        raise GCNetError(f"{image_dir} is not a folder; give the folder that holds the images of {path}")
    content = _read_json(path)
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise GCNetError(f'{path} has no list of objects "{key}"; give a COCO instance annotation file')
    categories: dict[int, dict[str, Any]] = {}
    for category in content["categories"]:
        id, name = category.get("id"), category.get("name")
        if not isinstance(id, int) or not isinstance(name, str):
            raise GCNetError(f"{path}: a category lacks a whole-number id or a name: {category}; add it")
        if id in categories or any(name == other["name"] for other in categories.values()):
            raise GCNetError(f"{path}: category id {id} or its name '{name}' occurs twice; make them unique")
        categories[id] = category
    return Source(
        path, image_dir, content["images"], content["annotations"], dict(sorted(categories.items()))
    )


def read_records(source: Source, labels: dict[int, int]) -> list[ImageRecord]:
    """The images of a parsed file with their annotations, labelled by `labels[category id]`.

    Raises GCNetError for a malformed entry; annotations of no use are left out with one warning.
    """
    sizes = _image_sizes(source)
    instances: dict[Any, list[Instance]] = {id: [] for id in sizes}
    seen: set[Any] = set()
    skipped: dict[str, list[Any]] = {}
    for annotation in source.annotations:
        where = f"{source.path}: annotation id {annotation.get('id')}"
        if not _is_id(annotation.get("id")) or annotation["id"] in seen:
            raise GCNetError(f"{where} is missing or occurs twice; give every annotation its own id")
        seen.add(annotation["id"])
        image_id = annotation.get("image_id")
        if not _is_id(image_id) or image_id not in sizes:
            raise GCNetError(
                f"{where} points at image id {image_id}, which is not listed; add the image or remove it"
            )
        instance = _instance(annotation, sizes[image_id], labels, where)
        if isinstance(instance, str):
            skipped.setdefault(instance, []).append(annotation["id"])
        else:
            instances[image_id].append(instance)
    _report_skipped(source, skipped)
    paths = _image_paths(source)
    return [
        ImageRecord(id, paths[id], width, height, tuple(instances[id]))
        for id, (height, width) in sizes.items()
    ]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise GCNetError(f"{path} cannot be read ({error.strerror}); give a COCO annotation file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise GCNetError(
            f"{path} is not JSON ({error.msg} at {place}); export the annotations again"
        ) from None
    except UnicodeDecodeError:
        raise GCNetError(f"{path} is not JSON (not UTF-8 text); export the annotations again") from None


def _image_sizes(source: Source) -> dict[Any, tuple[int, int]]:
    sizes: dict[Any, tuple[int, int]] = {}
    for image in source.images:
        id, name = image.get("id"), image.get("file_name")
        where = f"{source.path}: image id {id} ({name})"
        if not _is_id(id) or not isinstance(name, str) or id in sizes:
            raise GCNetError(f"{where} lacks an id of its own or a file_name; add them")
        height, width = image.get("height"), image.get("width")
        if not _is_number(height) or not _is_number(width) or min(height, width) < 1:
            raise GCNetError(f"{where} has width {width} and height {height}; give its size in pixels")
        sizes[id] = (int(height), int(width))
    return sizes


def _image_paths(source: Source) -> dict[Any, Path]:
    paths = {image["id"]: source.image_dir / image["file_name"] for image in source.images}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise GCNetError(
            f"{len(missing)} of the {len(paths)} images listed in {source.path} are missing, "
            f"first {missing[0]}; restore them or remove them from the list"
        )
    return paths


def _instance(
    annotation: dict[str, Any], size: tuple[int, int], labels: dict[int, int], where: str
) -> Instance | str:
    """The annotation as an Instance, or why it is of no use. Raises GCNetError if it is malformed."""
    category, box = annotation.get("category_id"), annotation.get("bbox")
    if not _is_id(category) or category not in labels:
        raise GCNetError(
            f"{where} has category id {category}, which is not listed; add the category or remove it"
        )
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise GCNetError(f"{where} has bbox {box}; give 4 numbers: x, y, width, height")
    x, y, w, h = (float(value) for value in box)
    try:
        segmentation = parse_segmentation(annotation.get("segmentation") or [], *size)
        area = annotation.get("area")
        area = float(area) if _is_number(area) else segmentation_area(segmentation, *size)
    except GCNetError as error:
        raise GCNetError(f"{where}: {error}; draw it again or remove it") from None
    # As upstream: an object needs a box of at least a pixel each way, some of it inside the image.
    if w < 1 or h < 1 or area <= 0:
        return "an empty box or area"
    if min(x + w, size[1]) <= max(x, 0) or min(y + h, size[0]) <= max(y, 0):
        return "a box outside its image"
    if not segmentation:
        return "no segmentation"
    crowd = bool(annotation.get("iscrowd", 0))
    return Instance(annotation["id"], labels[category], (x, y, x + w, y + h), segmentation, area, crowd)


def _report_skipped(source: Source, skipped: dict[str, list[Any]]) -> None:
    count = sum(map(len, skipped.values()))
    if count and len(skipped.get("no segmentation", ())) == len(source.annotations):
        raise GCNetError(f"{source.path} has boxes but no segmentations; export it for instance segmentation")
    if count:
        reasons = ", ".join(
            f"{len(ids)} with {reason} (first: id {ids[0]})" for reason, ids in skipped.items()
        )
        log.warning(
            "%s: left out %d of %d annotations: %s", source.path, count, len(source.annotations), reasons
        )


def _is_id(value: Any) -> TypeGuard[int | str]:
    return isinstance(value, (int, str))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
