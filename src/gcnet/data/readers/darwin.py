"""Reads Darwin JSON 2.0 of V7: a file for each image, with its `annotations`, and masks in a raster layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import head_of, object_in, object_of, objects_in, read_object, readable
from gcnet.data.readers.run_lengths import Runs
from gcnet.data.readers.shapes import check_mask_size, ellipse, even_odd
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source, warn_of_some

_MARK = re.compile(rb'"item"\s*:\s*\{')
_LAYER, _NUMBERS = "raster_layer", "mask_annotation_ids_mapping"


def find_darwin(root: Path) -> Readers:
    """Finds the files of an export, or of the latest release where several were pulled."""
    latest = root / "releases" / "latest"
    read = partial(_read_darwin, root / "images")
    return file_an_image(latest if latest.is_dir() else root, ".json", is_darwin, read)


def is_darwin(path: Path) -> bool:
    """Whether it is a file of Darwin, by its keys."""
    head = head_of(path, 1 << 16)
    return b'"annotations"' in head and _MARK.search(head) is not None


def _read_darwin(images: Path, folder: Path, files: Sequence[Path]) -> Source:
    entries, others = Entries(), []
    for path, content in readable(files, read_object):
        item = object_in(content, "item")
        slot = (objects_in(item.get("slots")) or [{}])[0]
        name = "/".join(str(item.get(key) or "").strip("/") for key in ("path", "name")).lstrip("/")
        entries.add_image(entries.image_beside(path, name, [images]), slot.get("width"), slot.get("height"))
        annotations = objects_in(content.get("annotations"))
        layers = [one[_LAYER] for one in annotations if isinstance(one.get(_LAYER), dict)]
        for number, one in enumerate(annotations, start=1):
            slots = one.get("slot_names")
            if "tag" in one or _LAYER in one:
                continue
            if isinstance(slots, list) and slots and slot.get("slot_name") not in slots:
                others.append(f"{path.name}:{number}")
            else:
                drawn = object_of(_object, one, layers, slot)
                entries.add_object(f"{path.name}:{number}", str(one.get("name") or "").strip(), drawn)
    total = len(entries.objects) + len(others)
    warn_of_some(folder, others, total, "annotations are not of the first image of their item; left out")
    return entries.source(folder, folder)


def _object(one: dict[str, Any], layers: Sequence[dict[str, Any]], size: dict[str, Any]) -> dict[str, Any]:
    """A polygon, which may have holes, a mask, an ellipse or a box; others have no area."""
    if "polygon" in one:
        paths = one["polygon"].get("paths") or [one["polygon"]["path"]]
        return even_odd([[(point["x"], point["y"]) for point in path] for path in paths], size)
    if "mask" in one:
        layer = next((layer for layer in layers if one["id"] in layer[_NUMBERS]), {})
        number = layer[_NUMBERS][one["id"]]
        return {"segmentation": _mask(layer["dense_rle"], number, (int(size["height"]), int(size["width"])))}
    if "ellipse" in one:
        middle, radius, angle = (one["ellipse"][key] for key in ("center", "radius", "angle"))
        return {"segmentation": [ellipse(middle["x"], middle["y"], radius["x"], radius["y"], angle)]}
    return {"bbox": [one["bounding_box"][key] for key in ("x", "y", "w", "h")]}


def _mask(pairs: Sequence[int], number: int, size: tuple[int, int]) -> dict[str, Any]:
    """The RLE of one of a layer's masks; its runs, pairs of a number and a length, go row by row."""
    numbers, lengths = np.array(pairs, np.int64).reshape(-1, 2).T
    ends = lengths.cumsum()
    if lengths.min() < 0 or ends.min() < 0 or ends[-1] != check_mask_size(size):
        raise ValueError(f"{ends[-1]} pixels in an image of {size}")
    own = numbers == number
    return Runs((ends - lengths)[own], ends[own], size).rle(by_rows=True)
