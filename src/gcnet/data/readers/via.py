"""Reads VGG Image Annotator 1 and 2: JSON, project or CSV files among the images, several or one a split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.console import shown
from gcnet.data.dataset import WHOLE, name_splits
from gcnet.data.readers.csv_table import table_rows
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import folder_with, head_of, image_places, object_of, objects_in, read_object
from gcnet.data.readers.shapes import ellipse
from gcnet.data.readers.splits import MOST_FILES, Readers, splits_of, warn_of_left
from gcnet.data.source import Source, warn
from gcnet.errors import GCNetError

_UNSET = ("unknown", "not_defined")  # what VIA writes into attributes until they are set
_CLASS_KEYS = ("class", "label", "category", "type", "object", "name")


def find_via(root: Path) -> Readers:
    """`via_region_data.json`, or a file of another name that has regions."""
    if root.is_file():
        return {WHOLE: partial(_read_via, [root])} if is_via(root) else {}
    for suffix in ("json", "csv"):  # of a tool that writes both the first one has all
        here, inside = (
            [path for path in sorted(root.glob(pattern))[:MOST_FILES] if is_via(path)]
            for pattern in (f"*.{suffix}", f"*/*.{suffix}")
        )
        named = [(path.parent.name, path) for path in inside]
        if not name_splits(root, named):  # one folder of annotations
            named = [(path.name, path) for path in (*here, *inside)]
        if splits := splits_of(root, named):
            warn_of_left(root, [*here, *inside], splits)
            return {split: partial(_read_via, [path]) for split, path in splits.items()}
        if here:  # a file for some of the images each
            return {WHOLE: partial(_read_via, sorted(filter(is_via, root.glob(f"*.{suffix}"))))}
    return {}


def is_via(path: Path) -> bool:
    """Whether it is a VIA file, by its first keys or its columns."""
    if path.suffix == ".csv":
        return b"region_shape_attributes" in head_of(path, 1 << 10)
    head = head_of(path, 1 << 16) if path.suffix == ".json" else b""
    return b'"_via_' in head or (b'"regions"' in head and b'_attributes"' in head)


def _read_via(paths: Sequence[Path]) -> Source:
    path = paths[0]
    entries, seen = Entries(), dict[str, tuple[Path, Any]]()
    for file in paths:
        repeats: Path | None = None
        content = _read_table(file) if file.suffix == ".csv" else read_object(file)
        images = content.get("_via_img_metadata", content)
        for entry in images.values() if isinstance(images, dict) else ():
            name = entry.get("filename") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                raise GCNetError(
                    f"{file} is not VIA's: an entry has no filename; export the annotations as JSON"
                )
            regions = entry.get("regions")
            regions = list(regions.values()) if isinstance(regions, dict) else regions
            other, known = seen.setdefault(name, (file, regions))
            if other != file and regions == known:  # a project beside what was exported of it
                repeats = other
                continue
            if other != file:
                raise GCNetError(
                    f"{file} and {other} both have {shown(name)}, with other regions; keep one of them"
                )
            entries.add_image(name)
            for number, region in enumerate(objects_in(regions)):
                drawn = object_of(_object, region.get("shape_attributes"))
                entries.add_object(f"{name}:{number}", label_of(region.get("region_attributes")), drawn)
        if repeats:
            warn(file, f"it repeats what is in {repeats}, which is read")
    places = image_places(path.parent, path.parent.parent)
    return entries.source(path, folder_with(places, list(seen)))


def _read_table(path: Path) -> dict[str, Any]:
    """The entries of a table with a region in each row, as in the JSON files."""
    entries: dict[str, Any] = {}
    names, *rows = table_rows(path)
    names[0] = names[0].lstrip("#")  # of VIA 1
    for cells in rows:
        row = dict(zip(names, cells, strict=False))
        name = row.get("filename")
        entry = entries.setdefault(str(name), {"filename": name, "regions": []})
        shape, attributes = (
            object_of(json.loads, row.get(f"region_{key}attributes")) for key in ("shape_", "")
        )
        if row.get("region_count") != "0":
            entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return entries


def label_of(attributes: Any) -> str:
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
