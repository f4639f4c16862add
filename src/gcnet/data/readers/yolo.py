"""Reads YOLO and Darknet: `labels/a.txt` has a line for each object of `images/a.jpg`.

The names of the classes are in another file.
"""

from __future__ import annotations

import itertools
import os.path
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.data.dataset import WHOLE
from gcnet.data.readers.files import Readers, by_folder, existing, object_of, read_lines, read_yaml
from gcnet.data.source import Source
from gcnet.errors import GCNetError
from gcnet.image_files import is_image
from gcnet.ops.decode import image_size

_KEYS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}  # of a data.yaml
_NAMES = ("classes.txt", "labels.txt", "obj.names", "classes.names")


def find_yolo(root: Path) -> Readers:
    """Ultralytics' `data.yaml`, Darknet's `obj.data`, or `classes.txt` beside the labels."""
    patterns = ("*.yaml", "*.yml", "*.data", "*/*.data")
    for path in [root] if root.is_file() else sorted(path for one in patterns for path in root.glob(one)):
        if path.suffix in (".yaml", ".yml", ".data") and path.is_file():
            content = _read_darknet(path) if path.suffix == ".data" else read_yaml(path)
            categories = _categories(content.get("names"))
            if categories and (content.get("train") or content.get("val")):
                return _listed_splits(path, content, categories)
    return {} if root.is_file() else _bare_splits(root)


def _categories(names: Any) -> list[dict[str, Any]]:
    """The categories from a list of names, or from a mapping of numbers to names."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
    return [{"id": id, "name": name} for id, name in pairs if isinstance(name, (str, int))]


def _listed_splits(path: Path, content: dict[str, Any], categories: list[dict[str, Any]]) -> Readers:
    base = path.parent / (content["path"] if isinstance(content.get("path"), str) else "")
    readers: Readers = {}
    places: dict[str, list[str]] = {}
    for split, keys in _KEYS.items():
        value = next((content[key] for key in keys if content.get(key)), [])
        places[split] = [
            one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)
        ]
        found = [image for place in places[split] for image in _images_of(path, base, place)]
        if found or (split == "train" and places[split]):
            # Folders are where the file says; a list's images lie in them or in the data set.
            folders = (base, *(base / place for place in places[split]))
            readers[split] = partial(_read_yolo, path, found, categories, folders)
    return {WHOLE: readers["train"]} if places["train"] == places["valid"] else readers


def _images_of(path: Path, base: Path, place: str) -> list[Path]:
    """The images of a folder or of a list of files, which is seen from the file, its `path` or a level up."""
    bases = [base, path.parent, path.parent.parent]
    for found in [folder / name for folder in bases for name in _spellings(place)]:
        if os.path.isdir(found) and not _holds(found, path.parent):
            return sorted(image for image in found.rglob("*") if is_image(image))
        if os.path.isfile(found):
            bases.append(found.parent)
            return [
                existing([folder / name for name in _spellings(line) for folder in bases])
                for line in dict.fromkeys(read_lines(found))
            ]
    return []


def _holds(folder: Path, inside: Path) -> bool:
    """Whether `folder` is an ancestor of `inside`, and so holds a person's other files."""
    return folder.resolve() in inside.resolve().parents


def _spellings(place: str) -> list[str]:
    """A path as it stands, without what leads up from the file, and without the `data/` that CVAT adds."""
    inside = place.lstrip("./") if place.startswith(".") else place
    return [place, inside, inside.partition("/")[2] or inside]


def _bare_splits(root: Path) -> Readers:
    """Labels and a list of classes, as LabelImg, Label Studio and makesense.ai write them."""
    folders = (root, root / "labels", *sorted(root.glob("*/")))
    names = next((path for folder in folders for name in _NAMES if (path := folder / name).is_file()), None)
    images = sorted(path for path in root.rglob("*") if is_image(path)) if names else []
    labelled = [image for image in images if os.path.isfile(_label_file(image))]
    if not names or not labelled:
        return {}
    categories = _categories(read_lines(names))
    return {
        split: partial(_read_yolo, names, part, categories, (root,))
        for split, part in by_folder(root, images).items()
    }


def _label_file(image: Path) -> Path:
    """`labels/a.txt` of `images/a.jpg`, or the one beside the image."""
    beside = image.with_suffix(".txt")
    parts = beside.parts
    last = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    if last is None:
        return beside
    labels = Path(*parts[:last], "labels", *parts[last + 1 :])
    return labels if os.path.isfile(labels) else beside


def _read_yolo(
    path: Path, images: Sequence[Path], categories: list[dict[str, Any]], within: tuple[Path, ...] = ()
) -> Source:
    if not images:
        raise GCNetError(f"{path}: its training images are not there; correct `train` in it, or `path`")
    entries, annotations = [], []
    for id, image in enumerate(images, start=1):
        entries.append({"id": id, "file_name": str(image.absolute())})
        if os.path.isfile(image):  # missing images are reported later, all together
            height, width = image_size(image)
            entries[-1] |= {"width": width, "height": height}
            labels = _label_file(image)
            for number, line in enumerate(read_lines(labels) if os.path.isfile(labels) else (), start=1):
                entry = {"id": f"{labels.name}:{number}", "image_id": id}
                annotations.append(entry | object_of(_object, line.split(), width, height))
    return Source(path, path.parent, entries, annotations, categories, within)


def _object(words: Sequence[str], width: int, height: int) -> dict[str, Any]:
    """An outline of x, y pairs, or a box by its middle and size, all as shares of the image."""
    label, *numbers = map(float, words)
    if len(numbers) in (4, 5):  # the fifth is a score
        x, y, w, h = numbers[:4]
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return {"category_id": label, "bbox": box}
    points = [value * side for value, side in zip(numbers, itertools.cycle((width, height)), strict=False)]
    return {"category_id": label, "segmentation": [points]}


def _read_darknet(path: Path) -> dict[str, Any]:
    """`key = value` lines; the names are in a file of their own."""
    pairs = [line.split("=", 1) for line in read_lines(path) if "=" in line]
    content: dict[str, Any] = {key.strip(): value.strip() for key, value in pairs}
    names = str(content.get("names", ""))
    file = existing([folder / name for folder in path.parents[:2] for name in (names, Path(names).name)])
    return content | {"names": read_lines(file) if os.path.isfile(file) else [], "val": content.get("valid")}
