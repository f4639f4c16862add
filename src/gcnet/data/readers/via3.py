"""Reads projects of VGG Image Annotator 3, which have tables of files, views, attributes and regions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import folder_with, head_of, image_places, object_in, object_of, read_object
from gcnet.data.readers.shapes import ellipse
from gcnet.data.readers.splits import Readers, file_a_split
from gcnet.data.readers.via import label_of
from gcnet.data.source import Source, warn_of_some

_MARK = re.compile(rb'\s*\{\s*"project"\s*:\s*\{[^{}]*"rev_timestamp"')
_IMAGE = 2  # a type of files
# Shapes by their numbers; 1 is a point, 5 a line. The last ones go through points on an object's edge.
_RECTANGLE, _CIRCLE, _ELLIPSE, _POLYLINE, _POLYGON, _BOX_THROUGH, _CIRCLE_THROUGH = 2, 3, 4, 6, 7, 8, 9


def find_via3(root: Path) -> Readers:
    """A project of any name, or one for each split, with the images beside or in a folder of images."""
    return file_a_split(root, "json", is_via3, _read_via3)


def is_via3(path: Path) -> bool:
    """Whether it is a project of VIA 3, by its first keys."""
    return _MARK.match(head_of(path, 1 << 16).removeprefix(b"\xef\xbb\xbf")) is not None


def _read_via3(path: Path, root: Path, _: str) -> Source:
    content = read_object(path)
    files, views, attributes, regions = (
        {id: one for id, one in object_in(content, key).items() if isinstance(one, dict)}
        for key in ("file", "view", "attribute", "metadata")
    )
    names = {key: str(one.get("fname")) for key, one in files.items() if one.get("type", _IMAGE) == _IMAGE}
    of_file: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for id, region in regions.items():
        view = views.get(str(region.get("vid")), {}).get("fid_list")
        if region.get("xy") and isinstance(view, list) and view:  # else it is of a whole file
            of_file.setdefault(str(view[0]), []).append((id, region))
    entries = Entries()
    for key, name in names.items():
        entries.add_image(name)
        for id, region in of_file.get(key, ()):
            chosen = object_of(_chosen, region.get("av"), attributes)
            entries.add_object(f"{name}:{id}", label_of(chosen), object_of(_object, region["xy"]))
    others = [str(one.get("fname")) for key, one in files.items() if key not in names]
    warn_of_some(path, others, len(files), "files are no images; left out")
    return entries.source(path, folder_with(image_places(path.parent, root), list(names.values())))


def _chosen(values: dict[str, str], attributes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What is said of a region, by the names of the attributes; of several marks the first."""
    chosen = {}
    for key, value in values.items():
        attribute = attributes.get(key, {})
        if str(attribute.get("anchor_id", "XY1")).endswith("XY1"):  # of regions
            option = attribute.get("default_option_id", "") if value == "_DEFAULT" else value
            options = attribute.get("options") or {}
            chosen[str(attribute.get("aname", key))] = options.get(str(option).split(",")[0], option)
    return chosen


def _object(xy: list[float]) -> dict[str, Any]:
    """An outline or a box; points and lines have no area."""
    shape, *values = xy
    if shape == _RECTANGLE:
        return {"bbox": values}
    if shape in (_CIRCLE, _ELLIPSE):
        x, y, rx, ry = [*values, values[-1]][:4]
        return {"segmentation": [ellipse(x, y, rx, ry)]}
    if shape in (_POLYLINE, _POLYGON):
        return {"segmentation": [values]}
    points = np.array(values, np.float64).reshape(-1, 2)
    if shape == _BOX_THROUGH:
        return {"bbox": [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]}
    if shape == _CIRCLE_THROUGH:
        ways = points[1:] - points[0]
        x, y = np.linalg.solve(2 * ways, (ways**2).sum(1)) + points[0]
        radius = float(np.hypot(*(points[0] - (x, y))))
        return {"segmentation": [ellipse(x, y, radius, radius)]}
    return {}
