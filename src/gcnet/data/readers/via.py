"""Reads VGG Image Annotator: its JSON or project files among the images, one for each split or one in all."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.console import shown
from gcnet.data.dataset import WHOLE, name_splits
from gcnet.data.readers.files import Readers, ellipse, folder_with, head_of, object_of, read_object, splits_of
from gcnet.data.source import Source
from gcnet.errors import GCNetError

log = logging.getLogger(__name__)

_MOST_FILES = 100  # JSON that is looked at: VIA has one a split
_UNSET = ("unknown", "not_defined")  # what VIA writes into attributes until they are set
_CLASS_KEYS = ("class", "label", "category", "type", "object", "name")


def find_via(root: Path) -> Readers:
    """`via_region_data.json`, or a file of another name that has regions."""
    if root.is_file():
        return {WHOLE: partial(_read_via, root)} if is_via(root) else {}
    inside, here = sorted(root.glob("*/*.json"))[:_MOST_FILES], sorted(root.glob("*.json"))[:_MOST_FILES]
    splits = name_splits(root, [(path.parent.name, path) for path in inside if is_via(path)])
    # One folder of annotations where folders are not of splits.
    splits = splits or splits_of(root, [(path.name, path) for path in (*here, *inside) if is_via(path)])
    return {split: partial(_read_via, path) for split, path in splits.items()}


def is_via(path: Path) -> bool:
    """Whether it is a VIA file, by its first keys."""
    head = head_of(path, 1 << 16) if path.suffix == ".json" else b""
    return b'"regions"' in head or b'"_via_' in head


def _read_via(path: Path) -> Source:
    content = read_object(path)
    entries = content.get("_via_img_metadata", content)
    images, annotations = [], []
    for id, entry in enumerate(entries.values() if isinstance(entries, dict) else (), start=1):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise GCNetError(f"{path} is not VIA's: an entry has no filename; export the annotations as JSON")
        images.append({"id": id, "file_name": name})
        regions = entry.get("regions")
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        for number, region in enumerate(regions if isinstance(regions, list) else ()):
            if isinstance(region, dict):
                label = _label(region.get("region_attributes") or {})
                found = {"id": f"{name}:{number}", "image_id": id, "category_id": label}
                annotations.append(found | object_of(_object, region.get("shape_attributes") or {}))
    _name_unlabelled(path, annotations)
    folders = [path.parent, path.parent / "images", path.parent.parent, path.parent.parent / "images"]
    folder = folder_with(folders, [image["file_name"] for image in images])
    return Source.of_names(path, folder, images, annotations)


def _name_unlabelled(path: Path, annotations: list[dict[str, Any]]) -> None:
    """Regions without a class get the only one there is; beside several classes they are left out."""
    names = {one["category_id"] for one in annotations} - {""}
    bare = [one for one in annotations if not one["category_id"]]
    if len(names) > 1:
        annotations[:] = [one for one in annotations if one["category_id"]]
    name = next(iter(names), "object")
    for one in bare:
        one["category_id"] = name
    if bare:
        outcome = "left out" if len(names) > 1 else f"taken for {shown(name)}"
        total = len(annotations) + (len(bare) if len(names) > 1 else 0)
        log.warning("%s: %d of %d regions have no class; %s", path, len(bare), total, outcome)


def _label(attributes: Any) -> str:
    """The class of a region: its attribute of a usual name, or its first one; empty without any."""
    if not isinstance(attributes, dict):
        return ""
    known = {key.lower(): key for key in attributes}
    values = [attributes[key] for key in [*(known[key] for key in _CLASS_KEYS if key in known), *attributes]]
    # A dictionary is of checkboxes.
    chosen = (
        next((name for name, checked in value.items() if checked), "") if isinstance(value, dict) else value
        for value in values
    )
    names = [str(value).strip() for value in chosen if isinstance(value, (str, int)) and str(value).strip()]
    return next((name for name in names if name not in _UNSET), names[0] if names else "")


def _object(shape: dict[str, Any]) -> dict[str, Any]:
    kind = shape.get("name")
    if kind in ("polygon", "polyline"):
        pairs = zip(shape["all_points_x"], shape["all_points_y"], strict=False)
        return {"segmentation": [[value for pair in pairs for value in pair]]}
    if kind == "rect":
        return {"bbox": [shape.get(key) for key in ("x", "y", "width", "height")]}
    if kind in ("circle", "ellipse"):
        rx, ry = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        return {"segmentation": [ellipse(shape["cx"], shape["cy"], rx, ry, shape.get("theta", 0.0))]}
    return {}
