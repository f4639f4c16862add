"""Reads YOLO and Darknet: `labels/a.txt` has a line for each object of `images/a.jpg`.

The names of the classes are in another file.
"""

from __future__ import annotations

import contextlib
import itertools
import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from gcnet.console import shown
from gcnet.data.dataset import WHOLE, split_of
from gcnet.data.folders import files_below
from gcnet.data.listed_images import NO_SIZE, BareNames, own_size
from gcnet.data.readers.coco import folder_of
from gcnet.data.readers.files import IMAGE_FOLDERS, existing, head_of, object_of, read_lines, read_yaml
from gcnet.data.readers.splits import Readers, by_folder
from gcnet.data.source import Source, warn, warn_of_some
from gcnet.errors import GCNetError
from gcnet.image_files import is_image

_LABELS = ("labels", "Labels", "LABELS")
_KEYS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}  # of a data.yaml
_MOST_PARTS = 30  # of a path
_NAMES = ("classes.txt", "labels.txt", "obj.names", "classes.names", "_darknet.labels")


def find_yolo(root: Path) -> Readers:
    """Ultralytics' `data.yaml`, Darknet's `obj.data`, or `classes.txt` beside the labels."""
    patterns = ("*.yaml", "*.yml", "*.data", "*/*.data")
    paths = [root] if root.is_file() else [path for one in patterns for path in root.glob(one)]
    files = []
    for path in sorted(paths, key=lambda path: (path.stem != "data", path)):
        if path.suffix in (".yaml", ".yml", ".data") and path.is_file():
            content: dict[str, Any] = {}
            with contextlib.suppress(GCNetError):  # it is told if no other file will do
                content = _read_darknet(path) if path.suffix == ".data" else read_yaml(path)
            file = _DataFile(path, content, _categories(content.get("names")))
            if file.categories and (content.get("train") or content.get("val")):
                files.append(file)
    for file in files:  # of several the first one whose images are there
        if any(file.images.values()):
            return _listed_splits(root, file)
    # Lists of another machine's may be missing, where images and labels lie in folders.
    bare = {} if root.is_file() else _bare_splits(root)
    return bare or (_listed_splits(root, files[0]) if files else {})


def _categories(names: Any) -> list[dict[str, Any]]:
    """The categories from a list of names, or from a mapping of numbers to names."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
    return [{"id": id, "name": name} for id, name in pairs if isinstance(name, (str, int))]


@dataclass(frozen=True)
class _DataFile:
    """A file that names the classes, and for each split the folders or lists of its images."""

    path: Path
    content: dict[str, Any]
    categories: list[dict[str, Any]]

    @property
    def base(self) -> Path:
        """The folder that the file says its names are seen from; its own by default."""
        path = self.content.get("path")
        return self.path.parent / (path if isinstance(path, str) else "")

    @cached_property
    def places(self) -> dict[str, list[str]]:
        """The folders or lists of each split, as named."""
        places = {}
        for split, keys in _KEYS.items():
            value = next((self.content[key] for key in keys if self.content.get(key)), [])
            value = value if isinstance(value, list) else [value]
            places[split] = [one for one in value if isinstance(one, str)]
        return places

    @cached_property
    def images(self) -> dict[str, list[Path]]:
        """The images of each split."""
        return {
            split: [image for place in places for image in self._images_of(place)]
            for split, places in self.places.items()
        }

    def _images_of(self, place: str) -> list[Path]:
        """The images of a folder or of a list, which is seen from the `base`, the file, or a level up."""
        bases = [self.base, self.path.parent, self.path.parent.parent]
        for found in [folder / name for folder in bases for name in _spellings(place)]:
            # A folder that the file's own is in holds a person's other files.
            if os.path.isdir(found) and found.resolve() not in self.path.parent.resolve().parents:
                return sorted(filter(is_image, files_below(found)))
            if os.path.isfile(found):
                bases.append(found.parent)
                lines = dict.fromkeys(read_lines(found))
                listed = [[folder / name for name in _spellings(line) for folder in bases] for line in lines]
                return [existing(places) or places[0] for places in listed]
        return []


def _listed_splits(root: Path, file: _DataFile) -> Readers:
    poses = "kpt_shape" in file.content
    if poses:
        warn(file.path, "its keypoints are left out; the boxes are read")
    readers: Readers = {}
    for split, places in file.places.items():
        images = file.images[split]
        if images or (split == "train" and places):
            # Folders are where the file says; a list's images lie in them or in the data set.
            within = (file.base, *(file.base / place for place in places), folder_of(root))
            readers[split] = partial(_read_yolo, file.path, images, file.categories, within, poses=poses)
        elif places:
            warn(file.path, f"{shown(places[0])} leads nowhere: there is no {split} split")
    if not readers:
        raise GCNetError(f"{file.path}: none of its images are there; correct `train` and `val`, or `path`")
    undivided = "train" in readers and file.images["train"] == file.images["valid"]
    return {WHOLE: readers["train"]} if undivided else readers


def _spellings(place: str) -> list[str]:
    """A path as it stands, then without what leads up from the file, and what is left of another machine's.

    CVAT adds a `data/`; others have `/content/drive/...`, or Windows' backslashes.
    """
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    parts = parts[-_MOST_PARTS:]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    # `images` alone is not the end of `/content/train/images`: all images may be in it.
    loose = len(parts) > 2 and not (split_of(parts[-1]) or "." in parts[-1])
    return [place, *(ends[:-1] if loose else ends)]


def _bare_splits(root: Path) -> Readers:
    """Labels and a list of classes, as LabelImg, Label Studio, makesense.ai and Roboflow write them."""
    folders = (root, root / "labels", *sorted(root.glob("*/")))
    files = [path for folder in folders for name in _NAMES if (path := folder / name).is_file()]
    if not files and len(named := [path for folder in folders for path in folder.glob("*.names")]) == 1:
        files = named  # of several, as in Darknet's own folder, most are of other data
    images = sorted(filter(is_image, files_below(root))) if files else []
    find = _LabelFiles()
    labelled = {image.parent for image in images if find.of(image)}
    if not labelled:
        return {}
    others = [image for image in images if image.parent not in labelled]
    warn_of_some(root, others, len(images), "images are in folders without labels; left out")
    images = [image for image in images if image.parent in labelled]
    used = {folder for path in find.taken for folder in path.parents}
    near = [path for path in files if path.parent in used] or files[:1]
    lists = {path.parent: read_lines(path) for path in reversed(near)}
    names = list(dict.fromkeys(name for path in near for name in lists[path.parent]))
    numbers: dict[Path, dict[float, int]] = {}
    if any(one != lists[near[0].parent] for one in lists.values()):  # each folder has its own numbers
        for folder, one in lists.items():
            numbers[folder] = {number: names.index(name) for number, name in enumerate(one)}
    return {
        split: partial(_read_yolo, near[0], part, _categories(names), (root,), numbers=numbers)
        for split, part in by_folder(root, images).items()
    }


class _LabelFiles:
    """Finds the labels of images: `labels/a.txt` of `images/a.jpg`, or beside it, in either case."""

    def __init__(self) -> None:
        self.folders: dict[Path, dict[str, Path]] = {}
        self.taken: set[Path] = set()

    def of(self, image: Path) -> Path | None:
        """The labels of an image; None if it has no file of them."""
        for folder in self._beside(image.parent):
            listed = self._listed(folder)
            found = listed.get(image.stem) or listed.get(image.stem.lower())
            if found and (found.stem == image.stem or not _is_of_another(found, image)):
                self.taken.add(found)
                return found
        return None

    def left(self, images: Sequence[Path]) -> list[Path]:
        """The labels in the folders of these images' that are of no image there."""
        labels = [
            path for files in self.folders.values() for path in files.values() if path not in self.taken
        ]
        folders = filter(os.path.isdir, {image.parent for image in images} if labels else ())
        stems = {path.stem.lower() for folder in folders for path in folder.glob("*") if is_image(path)}
        return sorted(path for path in labels if path.stem.lower() not in stems and is_label_file(path))

    @staticmethod
    def _beside(folder: Path) -> list[Path]:
        parts = folder.parts
        named = [i for i, part in enumerate(parts) if part.lower() == "images"]
        last = (named or [i for i, part in enumerate(parts) if part in IMAGE_FOLDERS] or [None])[-1]
        if last is None:
            return [folder]
        places = [Path(*parts[:last], name, *parts[last + 1 :]) for name in _LABELS]
        return [*places, folder] if named else [folder, *places]  # Darknet has JPEGImages, others img or data

    def _listed(self, folder: Path) -> dict[str, Path]:
        if folder not in self.folders:
            paths = sorted(folder.glob("*.[tT][xX][tT]")) if os.path.isdir(folder) else []
            files = [path for path in paths if os.path.isfile(path)]
            self.folders[folder] = {path.stem.lower(): path for path in files} | {
                path.stem: path for path in files
            }
        return self.folders[folder]


def _is_of_another(labels: Path, image: Path) -> bool:
    """Whether labels of a.txt belong to a.jpg, and not to A.jpg."""
    suffixes = (image.suffix, image.suffix.lower(), image.suffix.upper())
    return any(os.path.isfile(image.with_name(labels.stem + suffix)) for suffix in suffixes)


def is_label_file(path: Path) -> bool:
    """Whether a text file has labels of YOLO, by its first line."""
    return re.match(rb"\s*\d+(\s+[-+.\deE]+){4,}\s*(\n|$)", head_of(path)) is not None


def _read_yolo(
    path: Path,
    images: Sequence[Path],
    categories: list[dict[str, Any]],
    within: tuple[Path, ...],
    *,
    poses: bool = False,
    numbers: Mapping[Path, Mapping[float, int]] = {},
) -> Source:
    """`poses`: keypoints follow the boxes. `numbers`: the classes of the labels below a folder."""
    if not images:
        raise GCNetError(f"{path}: its training images are not there; correct `train` in it, or `path`")
    annotations, find, wide = [], _LabelFiles(), 0
    entries = [{"id": id, "file_name": str(image.absolute())} for id, image in enumerate(images, start=1)]
    source = Source(path, path.parent, entries, annotations, categories, within)
    bare, places = BareNames(source), []
    for id, listed in enumerate(images, start=1):
        found = [] if os.path.isfile(listed) else bare.of(listed.name)
        image = found[0] if len(found) == 1 else listed
        places.append(image)
        labels = find.of(image) or find.of(listed)
        height, width = own_size(image)
        if (height, width) != NO_SIZE:  # images that cannot be read are reported later, all together
            entries[id - 1] |= {"width": width, "height": height}
            own = next((numbers[one] for one in (labels.parents if labels else ()) if one in numbers), None)
            for number, line in enumerate(read_lines(labels) if labels else (), start=1):
                drawn = object_of(_object, line.split(), width, height, poses, own)
                annotations.append({"id": f"{image.stem}.txt:{number}", "image_id": id} | drawn)
                wide += drawn.get("bbox", [0] * 4)[2] > 2 * width
    if left := find.left(places):
        warn(path, f"{len(left)} files of labels have no image (first: {shown(left[0].name)})")
    if wide:
        kind = "far wider than their image: are they in pixels? YOLO's are shares of its sides"
        warn(path, f"{wide} of {len(annotations)} boxes are {kind}")
    return source


def _object(
    words: Sequence[str], width: int, height: int, poses: bool, classes: Mapping[float, int] | None
) -> dict[str, Any]:
    """An outline of x, y pairs, or a box by its middle and size, all as shares of the image."""
    label, *numbers = map(float, words)
    label = classes.get(label, -1) if classes is not None else label
    if poses or len(numbers) in (4, 5):  # the fifth is a score
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
    return content | {"names": read_lines(file) if file else [], "val": content.get("valid")}
