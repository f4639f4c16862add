"""Reads Pascal VOC: an XML file of boxes for each image, and perhaps a mask of its objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from gcnet.console import listed
from gcnet.data.dataset import WHOLE, name_splits, split_of
from gcnet.data.listed_images import likely_size
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import existing, head_of, object_of, read_lines, read_xml, readable
from gcnet.data.readers.shapes import read_mask
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source, warn, warn_of_some
from gcnet.ops.segmentations import mask_to_rle


def find_voc(root: Path) -> Readers:
    """`Annotations/*.xml` with `ImageSets` and perhaps masks in `SegmentationObject`; or XML among images."""
    bases = (root, *sorted(root.glob("*/")), *sorted(root.glob("VOCdevkit/*/")))
    lists = [path for path in bases if (path / "ImageSets").is_dir() and (path / "annotations").is_dir()]
    held = [path for path in bases if (path / "Annotations").is_dir()] or lists
    found = sorted(held[0].glob("[aA]nnotations/*.[xX][mM][lL]")) if held else []
    files = {path.stem: path for path in found if is_voc(path)}
    if not files or any(split_of(path.name) for path in held[1:]):
        return file_an_image(root, ".xml", is_voc, _read_voc)
    base = held[0]
    if held[1:]:
        others = listed([path.name for path in held[1:]], 3)
        warn(root, f"only {base.name} is read, not {others}")
    return _listed_splits(root, base, files) or {WHOLE: partial(_read_voc, base, list(files.values()))}


def _listed_splits(root: Path, base: Path, files: Mapping[str, Path]) -> Readers:
    """The splits of the lists in `ImageSets`; `files` are the annotations by stem."""
    masked = (base / "SegmentationObject").is_dir()
    lists = base / "ImageSets" / ("Segmentation" if masked else "Main")
    named = [(name, lists / f"{name}.txt") for name in ("train", "val", "test", "trainval")]
    splits = name_splits(root, [(name, path) for name, path in named if path.is_file()])
    readers: Readers = {}
    used: set[str] = set()
    for split, path in splits.items():
        names = dict.fromkeys(line.split()[0] for line in read_lines(path))
        stems = {name: name if name in files else name.rpartition(".")[0] for name in names}  # or a0.jpg
        own = [stem for stem in stems.values() if stem in files]
        missing = [name for name, stem in stems.items() if stem not in files]
        warn_of_some(path, missing, len(names), "names have no annotations; left out")
        used.update(own)
        readers[split] = partial(_read_voc, base, [files[stem] for stem in own])
    if readers:
        left = [stem for stem in files if stem not in used]
        warn_of_some(base, left, len(files), f"XML files are in no list of {lists} and not read")
    return readers


def is_voc(path: Path) -> bool:
    """Whether it is a VOC file, by its first element."""
    return path.suffix.lower() == ".xml" and re.search(rb"<annotation[ >]", head_of(path)) is not None


def _read_voc(base: Path, files: Sequence[Path]) -> Source:
    entries = Entries()
    for path, tree in readable(files, read_xml):
        shown = entries.image_beside(path, tree.findtext("filename"), [base / "JPEGImages", base])
        image = entries.add_image(shown, tree.findtext("size/width"), tree.findtext("size/height"))
        file = existing(at / "SegmentationObject" / f"{path.stem}.png" for at in (base, path.parent.parent))
        mask = read_mask(file, likely_size(image)) if file else None
        for place, item in enumerate(tree.iter("object"), start=1):
            if item.findtext("deleted", "").strip() == "1":  # LabelMe keeps what was removed
                continue
            drawn = object_of(_object, item, None if mask is None else mask == place)
            entries.add_object(f"{path.name}:{place}", item.findtext("name", "").strip(), drawn)
    return entries.source(base, base)


def _object(item: ElementTree.Element, mask: np.ndarray | None) -> dict[str, Any]:
    """A box, with the outline if there is one. VOC counts pixels from 1, and the last belongs to the box.

    Objects that are difficult count neither way in its own scores.
    """
    found: dict[str, Any] = {"ignore": item.findtext("difficult")}
    corners = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    if None not in corners:
        x1, y1, x2, y2 = (float(corner or "nan") for corner in corners)
        found["bbox"] = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
    points = _polygon(item)
    if mask is not None and mask.any():
        found["segmentation"] = mask_to_rle(mask)
    elif points:
        found["segmentation"] = [points]
    return found


def _polygon(item: ElementTree.Element) -> list[float]:
    """Roboflow's `<polygon><x1>..</x1><y1>..</y1><x2>...`, in order, or LabelMe's `<pt>`s of x and y."""
    polygon = item.find("polygon")
    if polygon is not None and polygon.find("pt") is not None:
        return [float(point.findtext(axis) or "nan") for point in polygon.iter("pt") for axis in ("x", "y")]
    found = [] if polygon is None else [point for point in polygon if re.fullmatch(r"[xy]\d{1,9}", point.tag)]
    found.sort(key=lambda point: (int(point.tag[1:]), point.tag[0]))
    return [float(point.text or "nan") for point in found]
