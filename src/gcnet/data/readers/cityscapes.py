"""Reads Cityscapes: `gtFine/train/ulm/a_gtFine_polygons.json` of `leftImg8bit/train/ulm/a_leftImg8bit.png`.

Its polygons are drawn in their order, and a mask is what is then seen of its object. The India Driving
Dataset (IDD) has such files, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import existing, head_of, objects_in, read_object, readable
from gcnet.data.readers.run_lengths import Runs
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source
from gcnet.ops.segmentations import LONGEST_OUTLINE, parse_polygon

_NAME = re.compile(r"(.*?_)(?:(gt[A-Za-z]+)_)?polygons\.json")
_CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_OTHERS = (  # areas, and what has too few objects to be a class in Cityscapes' own evaluation
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground"),
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge"),
    *("tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky"),
    *("caravan", "trailer"),
    # IDD's
    *("drivable fallback", "non-drivable fallback", "curb", "billboard", "obs-str-bar-fallback"),
    "fallback background",
)
_NOT_DRAWN = "license plate"
_MOST_PIXELS, _MOST_POLYGONS = 1 << 26, (1 << 16) - 1  # of an image, which are drawn
_FAR = 1e6  # further out, coordinates lose pixels


def find_cityscapes(root: Path) -> Readers:
    """Finds a file for each image, in folders of cities in those of splits; fine ones before coarse ones."""
    endings = ("_gtfine_polygons.json", "_polygons.json")
    found = (file_an_image(root, ending, is_cityscapes, _read_cityscapes) for ending in endings)
    return next(filter(None, found), {})


def is_cityscapes(path: Path) -> bool:
    """Whether it is a file of Cityscapes, by its name and first key."""
    return _NAME.fullmatch(path.name) is not None and b'"imgHeight"' in head_of(path)


def _read_cityscapes(folder: Path, files: Sequence[Path]) -> Source:
    entries = Entries()
    for path, content in readable(files, read_object):
        height, width = content.get("imgHeight"), content.get("imgWidth")
        entries.add_image(_image_of(path), width, height)
        for number, name, drawn in _objects(objects_in(content.get("objects")), height, width):
            entries.add_object(f"{path.name}:{number}", name, drawn)
    names = {one["category_id"] for one in entries.objects}
    # Images of one's own, annotated with Cityscapes' tool, may have nothing of its classes.
    return entries.source(folder, folder, _CLASSES if not names or names & {*_CLASSES} else ())


def _image_of(path: Path) -> str:
    """The image of a file: beside it, or where folders have "leftImg8bit" in their names for "gtFine"."""
    stem, kind = re.findall(_NAME, path.name)[0]
    above = path.parent.parts
    folders = [
        Path(*above[:start], *(part.replace(kind or "gtFine", "leftImg8bit") for part in above[start:]))
        for start in range(len(above), -1, -1)
    ]
    name = f"{stem}leftImg8bit"
    image = existing(folder / f"{name}{end}" for folder in dict.fromkeys(folders) for end in (".png", ".jpg"))
    return str(image.absolute()) if image else name  # by which it is looked for elsewhere


def _objects(
    polygons: Sequence[dict[str, Any]], height: Any, width: Any
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The number, class and mask of each object that is seen; nothing of a damaged one.

    As in Cityscapes' instanceIds.png, all groups of a class are one crowd.
    """
    is_size = all(isinstance(side, int) and side > 0 for side in (height, width))
    can_draw = is_size and height * width <= _MOST_PIXELS
    canvas = np.zeros((height, width) if can_draw else (1, 1), np.uint16)
    named: dict[int, tuple[str, bool, bool]] = {}
    groups: dict[str, int] = {}
    most = LONGEST_OUTLINE  # of all together
    for number, one in enumerate(polygons, start=1):
        label = str(one.get("label") or "")
        if one.get("deleted") or label == _NOT_DRAWN:
            continue
        single = label.removesuffix("group")
        is_group = label not in _OTHERS and single != label and single in (*_CLASSES, *_OTHERS)
        name = single if is_group else label
        points = parse_polygon(one.get("polygon")) if can_draw and number <= _MOST_POLYGONS else None
        spans = None if points is None else _spans(points, (height, width), most)
        most -= 2 * len(spans or ())
        first = groups.setdefault(name, number) if is_group and spans is not None else number
        for row, left, right in spans or ():
            canvas[row, left:right] = first
        if name not in _OTHERS:
            named[first] = (name, is_group, spans is not None)
    pixels = cv2.transpose(canvas).ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    ends = np.append(starts[1:], pixels.size)
    for number, (name, is_group, is_sound) in named.items():
        own = pixels[starts] == number
        if own.any():
            rle = Runs(starts[own], ends[own], (height, width)).rle(by_rows=False)
            yield number, name, {"segmentation": rle, "iscrowd": is_group}
        elif not is_sound:
            yield number, name, {}


def _spans(
    points: Float[np.ndarray, "P 2"], size: tuple[int, int], most: int
) -> list[tuple[int, int, int]] | None:
    """The rows of pixels inside of a polygon: which one, the first pixel, and that after the last one.

    They are those of the published instanceIds.png, which Pillow drew as it was then: in each row between the
    crossings of the line through the middles of its pixels. None where there are more than `most` crossings.
    """
    corners = points.clip(-_FAR, _FAR).astype(np.int64)
    ends = np.stack([corners, np.roll(corners, -1, 0)], -1)
    top, bottom = (edge(ends[:, 1], axis=1).clip(0, size[0]) for edge in (np.min, np.max))
    rows = bottom - top
    if rows.sum() > most:
        return None
    edge = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(edge)) - np.repeat(rows.cumsum() - rows, rows) + top[edge]
    (x, x_end), (y, y_end) = ends.astype(np.float32).transpose(1, 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # of level edges, which cross no such line
        slope = (x_end - x) / (y_end - y)
    crossing = (row + 0.5 - y[edge]).astype(np.float32) * slope[edge] + x[edge]
    order = np.lexsort((crossing, row))
    row, crossing = row[order], crossing[order].astype(np.float64)
    left, right = np.ceil(crossing[::2] - 0.5), np.floor(crossing[1::2] + 0.5) + 1
    within = (side.clip(0, size[1]).astype(np.int64).tolist() for side in (left, right))
    return list(zip(row[::2].tolist(), *within, strict=True))
