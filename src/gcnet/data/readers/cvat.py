"""Reads CVAT's own XML, "CVAT for images". An image may name the split that it belongs to."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from gcnet.console import listed, shown
from gcnet.data.dataset import WHOLE, name_splits
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import folder_with, head_of, object_of, read_xml
from gcnet.data.readers.shapes import ellipse, place_mask, turned_box
from gcnet.data.readers.splits import Readers, by_folder
from gcnet.data.source import Source, warn, warn_of_some
from gcnet.errors import GCNetError
from gcnet.image_files import is_of_masks

_NO_AREA = ("tag", "points", "polyline", "cuboid", "skeleton")


def find_cvat(root: Path) -> Readers:
    """`annotations.xml`, one for all images or one a folder."""
    files = [root] if root.is_file() else sorted([*root.glob("*.xml"), *root.glob("*/annotations.xml")])
    found = [path for path in files if is_cvat(path) and not is_of_masks(path.parent.name)]
    if not found:
        return {}
    if len(found) == 1 and (splits := _subsets(root, found)):
        return splits
    # A file a split, or the jobs of a task.
    parts = {WHOLE: found} if root.is_file() else by_folder(root, found, alone=True, stems=True)
    return {split: partial(_read_cvat, own, None) for split, own in parts.items()}


def _subsets(root: Path, found: Sequence[Path]) -> Readers:
    """The splits that the images of the only file name; none where there is no training among them."""
    tree = read_xml(found[0])
    if tree.find("track") is not None and tree.find("image") is None:
        raise GCNetError(f"{found[0]} is CVAT's format for videos; export it as CVAT for images, or as COCO")
    images = [(image.get("name", ""), image.get("subset", "")) for image in tree.iter("image")]
    subsets = sorted({subset for _, subset in images} - {""})
    named = name_splits(root, [(subset, subset) for subset in subsets])
    if "train" not in named:
        return {}
    left = [name for name, subset in images if subset not in named.values()]
    warn_of_some(found[0], left, len(images), "images are in the subset of no split and not read")
    return {split: partial(_read_cvat, found, subset) for split, subset in named.items()}


def is_cvat(path: Path) -> bool:
    """Whether it is a CVAT file, by its first element."""
    return path.suffix.lower() == ".xml" and b"<annotations>" in head_of(path)


def _read_cvat(paths: Sequence[Path], subset: str | None) -> Source:
    path = paths[0]
    labels: list[str] = []
    entries, others, seen = Entries(), Counter[str](), dict[str, Path]()
    folder = path.parent
    for file in paths:
        tree = read_xml(file)
        labels += [
            label.findtext("name") or ""
            for label in tree.iterfind("meta//labels/label")
            if label.findtext("type") not in _NO_AREA
        ]
        own = [image for image in tree.iter("image") if subset in (None, image.get("subset"))]
        folders = [file.parent, file.parent / "images"]
        folders += [file.parent / "images" / subset] if subset else []
        folder = folder_with(folders, [image.get("name") for image in own])
        for image in own:
            name = image.get("name") or ""
            place = name if len(paths) == 1 else os.path.join(os.path.relpath(folder, path.parent), name)
            if seen.setdefault(place, file) != file:
                raise GCNetError(f"{file} and {seen[place]} both have {shown(name)}; keep one of them")
            others.update(shape.tag for shape in image if shape.tag in _NO_AREA)
            entry = entries.add_image(place, image.get("width"), image.get("height"))
            for number, shape in enumerate(image, start=1):
                if shape.tag in ("polygon", "box", "mask", "ellipse"):
                    drawn = object_of(_object, shape, entry)
                    entries.add_object(f"{place}:{number}", shape.get("label", ""), drawn)
    if entries.objects:
        others.pop("tag", None)  # of images that have objects, too
    if others:
        kinds = listed([f"{count} {kind}" for kind, count in others.items()])
        warn(path, f"shapes that have no area are left out: {kinds}")
    base = folder if len(paths) == 1 else path.parent
    return entries.source(path, base, labels)


def _object(shape: ElementTree.Element, size: dict[str, Any]) -> dict[str, Any]:
    def number(key: str) -> float:
        return float(shape.get(key, "nan"))

    angle = math.radians(float(shape.get("rotation", 0)))  # clockwise on the screen, about the middle
    if shape.tag == "box":
        x, y = number("xtl"), number("ytl")
        width, height = number("xbr") - x, number("ybr") - y
        return turned_box((x, y, width, height), angle, about=(x + width / 2, y + height / 2))
    if shape.tag == "polygon":
        values = re.findall(r"[-+.\deE]+", shape.get("points", ""))
        return {"segmentation": [[float(value) for value in values]]}
    if shape.tag == "ellipse":
        return {"segmentation": [ellipse(number("cx"), number("cy"), number("rx"), number("ry"), angle)]}
    # Runs of 0 and 1 in turns, along the rows of the mask's own box.
    left, top, width, height = (int(number(key)) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.get("rle", "").split(",")]
    rows, columns = int(size["height"] or 0), int(size["width"] or 0)
    if min(runs) < 0 or sum(runs) != width * height or height > rows or width > columns:
        return {}
    values = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    return place_mask(values.reshape(height, width), left, top, (rows, columns))
