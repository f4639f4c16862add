"""Reads Label Studio's own exports, JSON and JSON-MIN: a list of tasks, each with the regions of an image.

Unlike its COCO export they have the masks that were painted with its brush.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from jaxtyping import UInt8

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import existing, head_of, image_places, object_of, objects_in, read_json
from gcnet.data.readers.shapes import check_mask_size, ellipse, turned_box
from gcnet.data.readers.splits import Readers, file_a_split
from gcnet.data.source import Source, warn_of_some
from gcnet.image_files import has_image_suffix
from gcnet.ops.segmentations import mask_to_rle

log = logging.getLogger(__name__)

_LABELS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels", "labels")
_OUTLINES = ("points", "rle", "height", "radiusX")  # a region has one of them; points have no height


def find_label_studio(root: Path) -> Readers:
    """A file of tasks, or one for each split, with the images anywhere in the folder."""
    return file_a_split(root, "json", is_label_studio, _read_label_studio)


def is_label_studio(path: Path) -> bool:
    """Whether it is a list of tasks, by the keys of the first ones."""
    head = head_of(path, 1 << 16) if path.suffix == ".json" else b""
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"[":
        return False
    is_undone = b'"data"' in head and (b'"annotations"' in head or b'"completions"' in head)
    return is_undone or b'"result"' in head or b'"original_width"' in head


def _read_label_studio(path: Path, root: Path, _: str) -> Source:
    tasks = objects_in(read_json(path))
    folders = image_places(path.parent, root)
    entries = Entries()
    unnamed, undone, several = [], [], []
    for id, task in enumerate(tasks, start=1):
        name, (regions, finished) = _image_of(task), _regions_of(task)
        if not name or regions is None:
            (undone if name else unnamed).append(name or f"task {task.get('id', id)}")
            continue
        if finished > 1:
            several.append(name)
        # Of a server's path the end is what another machine may have.
        parts = name.split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        place = existing(folder / end for end in ends for folder in folders)
        entries.add_image(str(place.absolute()) if place else name)
        for number, region in enumerate(_labelled(regions)):
            entries.add_object(f"{parts[-1]}:{number}", _label(region), object_of(_object, region))
    warn_of_some(path, unnamed, len(tasks), "tasks name no image; left out")
    warn_of_some(path, undone, len(tasks), "tasks have no finished annotation; left out")
    warn_of_some(path, several, len(tasks), "tasks were annotated several times; the newest is taken")
    return entries.source(path, path.parent)


def _image_of(task: dict[str, Any]) -> str:
    """The path of a task's image; it may be an address, or have the path of a served file in its query."""
    data = task.get("data")
    data = data if isinstance(data, dict) else task
    values = [value for value in (data.get("image"), *data.values()) if isinstance(value, str)]
    paths = [path for path in map(_path_of, values) if path]
    return next(filter(has_image_suffix, paths), paths[0] if paths else "")


def _path_of(value: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError:
        return ""
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    return path.replace("\\", "/").lstrip("/")


def _regions_of(task: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, int]:
    """The regions of a task, None where nobody has finished it, and the number of finished annotations.

    Of several annotations the one marked as ground truth is taken, or else the newest.
    """
    if "data" not in task:  # JSON-MIN, which has lists of regions in the task
        return [one for value in task.values() for one in objects_in(value)], 1
    every = objects_in(task.get("annotations", task.get("completions")))
    done = [one for one in every if not (one.get("was_cancelled") or one.get("skipped"))]
    if not done:
        return None, 0
    chosen = max(done, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at"))))
    results = objects_in(chosen.get("result"))
    return [one | value for one in results if isinstance(value := one.get("value"), dict)], len(done)


def _labelled(regions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has an outline. A region that was drawn first and named then comes twice, once with its label."""
    drawn = [one for one in regions if any(key in one for key in _OUTLINES)]
    outlines = [_outline(one) for one in drawn if _label(one)]
    return [one for one in drawn if _label(one) or _outline(one) not in outlines]


def _outline(region: dict[str, Any]) -> list[Any]:
    return [region.get(key) for key in (*_OUTLINES, "x", "y", "width")]


def _label(region: dict[str, Any]) -> str:
    names = (region.get(key) for key in _LABELS)
    return next((str(name[0]) for name in names if isinstance(name, list) and name), "")


def _object(region: dict[str, Any]) -> dict[str, Any]:
    """Sides and points are percentages of the image's; a rectangle turns about its first corner.

    `image_rotation` is only how the image was shown: the numbers are of the image as it is.
    """
    width, height = int(region["original_width"]), int(region["original_height"])
    if "rle" in region:
        return {"segmentation": mask_to_rle(_painted(region["rle"], (height, width)))}
    scale = np.array([width, height]) / 100
    if "points" in region:
        return {"segmentation": [(np.array(region["points"], np.float64) * scale).ravel().tolist()]}
    x, y = np.array([region["x"], region["y"]]) * scale
    angle = math.radians(region.get("rotation") or 0)
    if "radiusX" in region:
        rx, ry = np.array([region["radiusX"], region["radiusY"]]) * scale
        return {"segmentation": [ellipse(x, y, rx, ry, angle)]}
    across, down = np.array([region["width"], region["height"]]) * scale
    return turned_box((x, y, across, down), angle, about=(x, y))


def _painted(packed: Sequence[int], size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    """The mask in the packed runs of a picture of four channels, whose last one says what is painted.

    The runs are those of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack: the number of
    values, their bits, four lengths of counts; then runs of one value, or of values one by one.
    """
    bits = np.unpackbits(np.array(packed, np.uint8))
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int("".join(map(str, bits[place - count : place])), 2)

    total, word, lengths = read(32), read(5) + 1, [read(4) + 1 for _ in range(4)]
    if total != check_mask_size((4 * size[0], size[1])) or word != 8:
        raise ValueError(f"{total} values of {word} bits")
    values = np.zeros(total, np.uint8)
    start = 0
    while start < total:
        is_run = read(1)
        end = start + 1 + read(lengths[read(2)])
        words = bits[place : place + 8 * (1 if is_run else end - start)]
        values[start:end] = np.packbits(words)
        start, place = end, place + len(words)
    return (values.reshape(*size, 4)[..., 3] > 0).astype(np.uint8)
