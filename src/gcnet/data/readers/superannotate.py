"""Reads SuperAnnotate: a file for each image, or one for all, which its desktop program writes.

Masks of its pixel projects are colours in `a.jpg___save.png`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.listed_images import likely_size
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import (
    existing,
    head_of,
    object_in,
    object_of,
    objects_in,
    read_json,
    read_object,
    readable,
)
from gcnet.data.readers.shapes import cut_out, ellipse, grouped, read_mask
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source, warn_of_some
from gcnet.image_files import has_image_suffix
from gcnet.ops.segmentations import mask_to_rle

_KEYS = (b'"metadata"', b'"instances"')
_OTHER_KEYS = (b'"classId"', b'"className"', b'"comments"', b'"tags"')
_OF_ALL = "___sa_version___"


def find_superannotate(root: Path) -> Readers:
    """Finds a file for each image, in a folder for each split or all in one."""
    return file_an_image(root, ".json", is_superannotate, _read_superannotate)


def is_superannotate(path: Path) -> bool:
    """Whether it is a file of SuperAnnotate, by its keys."""
    head = head_of(path, 1 << 16)
    is_of_one = all(key in head for key in _KEYS) and any(key in head for key in _OTHER_KEYS)
    return is_of_one or f'"{_OF_ALL}"'.encode() in head


def _read_superannotate(folder: Path, files: Sequence[Path]) -> Source:
    entries, unmasked = Entries(), []
    class_names = cache(_class_names)
    for path, content in readable(files, read_object):
        names = class_names(path.parent)
        for name, one in _images(path, content).items():
            said = object_in(one, "metadata")
            shown = entries.image_beside(path, name)
            image = entries.add_image(shown, said.get("width"), said.get("height"))
            file = path.parent / f"{Path(name).name}___save.png"  # colours of objects, as numbers
            mask = read_mask(file, likely_size(image))
            instances = [each for each in objects_in(one.get("instances")) if each.get("type") != "tag"]
            if mask is None and any("parts" in instance for instance in instances):
                unmasked.append(name)
            objects = grouped(instances, partial(_group, names=names))
            for number, ((_, label), parts) in enumerate(objects.items(), start=1):
                entries.add_object(f"{name}:{number}", label, object_of(_object, parts, mask, image))
    warn_of_some(folder, unmasked, len(entries.images), "images have no ___save.png of their size")
    return entries.source(folder, folder)


def _images(path: Path, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is said of each image, by its name: a file may be called by it, with a kind of projects behind."""
    if _OF_ALL in content:
        return {name: one for name, one in content.items() if isinstance(one, dict)}
    said = object_in(content, "metadata")
    name = re.sub("___(objects|pixel)$", "", path.stem)
    return {name if has_image_suffix(name) else str(said.get("name") or name): content}


def _class_names(folder: Path) -> dict[Any, str]:
    """The names of classes by their ids, which instances have where they have no names."""
    above = (folder, *folder.parents[:2])
    file = existing(place / name for place in above for name in ("classes/classes.json", "classes.json"))
    classes = objects_in(read_json(file)) if file else []
    return {one["id"]: str(one.get("name")) for one in classes if isinstance(one.get("id"), int)}


def _group(instance: dict[str, Any], names: dict[Any, str]) -> tuple[Any, str]:
    """Polygons of one group and class are one object, as in its own COCO files."""
    group, id = instance.get("groupId", instance.get("group_id")), instance.get("classId")
    name = instance.get("className") or (names.get(id, "") if isinstance(id, int) else "")
    return group if group and instance.get("type") == "polygon" else None, str(name)


def _object(parts: Sequence[dict[str, Any]], mask: np.ndarray | None, size: dict[str, Any]) -> dict[str, Any]:
    """A polygon, with holes or without, a box, turned or not, an ellipse or a mask; others have no area."""
    one = parts[0]
    kind, points = one.get("type"), one.get("points") or {}
    if kind == "polygon":
        holes = [hole for part in parts for hole in part.get("exclude") or ()]
        return cut_out([part["points"] for part in parts], holes, size)
    if kind == "bbox":
        (x1, x2), (y1, y2) = (sorted((points[f"{axis}1"], points[f"{axis}2"])) for axis in "xy")
        return {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    if kind == "rbbox":
        return {"segmentation": [[points[f"{axis}{i}"] for i in range(1, 5) for axis in "xy"]]}
    if kind == "ellipse":
        angle = math.radians(one["angle"])
        return {"segmentation": [ellipse(one["cx"], one["cy"], one["rx"], one["ry"], angle)]}
    if "parts" not in one or mask is None:
        return {}
    colours = [bytes.fromhex(part["color"].lstrip("#")) for part in one["parts"]]
    own = np.isin(mask, [int.from_bytes(colour, "little") for colour in colours])
    return {"segmentation": mask_to_rle(own)} if own.any() else {}
