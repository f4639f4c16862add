"""Reads ISAT: a JSON file for each image, with polygons in `objects`, of which several may be one object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import head_of, object_in, object_of, objects_in, read_object, readable
from gcnet.data.readers.shapes import cut_out, grouped
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source

_MARK = re.compile(rb'"description"\s*:\s*"ISAT"')
_BACKGROUND = "__background__"


def find_isat(root: Path) -> Readers:
    """Finds a JSON file for each image, in a folder for each split or all in one."""
    return file_an_image(root, ".json", is_isat, _read_isat)


def is_isat(path: Path) -> bool:
    """Whether it is a file of ISAT, by the mark that its `info` begins with."""
    return bool(_MARK.search(head_of(path)))


def _read_isat(folder: Path, files: Sequence[Path]) -> Source:
    entries = Entries()
    for path, content in readable(files, read_object):
        info = object_in(content, "info")
        file = entries.image_beside(path, info.get("name"))
        image = entries.add_image(file, info.get("width"), info.get("height"))
        polygons = objects_in(content.get("objects"))
        holes = [one for one in polygons if one.get("category") == _BACKGROUND]
        objects = [one for one in polygons if one.get("category") != _BACKGROUND]
        for number, ((_, (label, crowd)), parts) in enumerate(grouped(objects, _group).items()):
            drawn = object_of(_object, parts, holes, image) | {"iscrowd": crowd}
            entries.add_object(f"{path.name}:{number}", label, drawn)
    return entries.source(folder, folder)


def _group(polygon: dict[str, Any]) -> tuple[Any, tuple[str, bool]]:
    """As in ISAT's own COCO files; 0 is the group of what was given none."""
    return polygon.get("group") or None, (str(polygon.get("category") or ""), bool(polygon.get("iscrowd")))


def _object(
    parts: Sequence[dict[str, Any]], holes: Sequence[dict[str, Any]], size: dict[str, Any]
) -> dict[str, Any]:
    """The polygons, or a mask where background lies on a layer above them: that is how ISAT draws holes."""
    lowest = min(float(one.get("layer") or 0) for one in parts)
    above = [one["segmentation"] for one in holes if float(one.get("layer") or 0) > lowest]
    return cut_out([one["segmentation"] for one in parts], above, size)
