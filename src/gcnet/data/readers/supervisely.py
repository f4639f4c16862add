"""Reads Supervisely: a JSON file in `ann/` for each image in `img/`, with its `objects`."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import head_of, object_in, object_of, objects_in, read_object, readable
from gcnet.data.readers.shapes import check_mask_size, cut_out, place_mask
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source
from gcnet.ops.decode import read_cutout

_MOST_BYTES = 1 << 26  # of a mask's PNG


def find_supervisely(root: Path) -> Readers:
    """Finds the files of a project, whose datasets may be the splits."""
    return file_an_image(root, ".json", is_supervisely, _read_supervisely)


def is_supervisely(path: Path) -> bool:
    """Whether it is a file of Supervisely, by its keys."""
    head = head_of(path)
    return b'"classTitle"' in head or (b'"size"' in head and b'"objects"' in head and b'"tags"' in head)


def _read_supervisely(folder: Path, files: Sequence[Path]) -> Source:
    entries = Entries()
    for path, content in readable(files, read_object):
        size = object_in(content, "size")
        file = entries.image_beside(path, path.stem)
        image = entries.add_image(file, size.get("width"), size.get("height"))
        for number, one in enumerate(objects_in(content.get("objects"))):
            drawn = object_of(_object, one, image)
            entries.add_object(f"{path.name}:{number}", one.get("classTitle"), drawn)
    return entries.source(folder, folder)


def _object(one: dict[str, Any], size: dict[str, Any]) -> dict[str, Any]:
    """A box, a polygon, with holes or without, or a mask; points, lines and cuboids have no area."""
    kind = one.get("geometryType")
    if kind == "bitmap":
        data = zlib.decompressobj().decompress(base64.b64decode(one["bitmap"]["data"]), _MOST_BYTES)
        shape = int(size["height"]), int(size["width"])
        x, y = map(round, one["bitmap"]["origin"])
        return place_mask(read_cutout(data, max_pixels=check_mask_size(shape)).astype(np.uint8), x, y, shape)
    points = one["points"]["exterior"]
    if kind == "rectangle":  # its last row and column belong to it
        (x1, y1), (x2, y2) = np.sort(points, axis=0).tolist()
        return {"bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1]}
    if kind != "polygon":
        return {}
    return cut_out([points], one["points"].get("interior", []), size)
