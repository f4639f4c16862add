"""Reads folders of masks: one image of numbers for each image, or one black and white image for each object.

In `masks/a.png` of `images/a.jpg` each number is an object; in a black and white mask, each connected area.
Several masks in `masks/a/`, or in `a/masks/` beside `a/images/a.png`, are one object each. A `classes.txt`,
CVAT's `labelmap.txt` or a `class_dict.csv` names the classes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Integer

from gcnet.console import listed, shown
from gcnet.data.readers.files import Readers, by_folder, read_lines, read_mask
from gcnet.data.source import Source
from gcnet.errors import GCNetError
from gcnet.image_files import MASK_FOLDERS, is_image, words_of
from gcnet.ops.decode import image_size, read_index_mask
from gcnet.ops.segmentations import mask_to_rle

log = logging.getLogger(__name__)

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pngimages")
_OBJECT_MASKS, _CLASS_MASKS = "SegmentationObject", "SegmentationClass"  # of labelme2voc
_MASKS = (*MASK_FOLDERS, "labels", "label", "annotations")  # these three may be anything
_NUMBERED = re.compile(r"[_-]\d+$")
_NAMES = ("classes.txt", "class_names.txt")
_COLOURS = ("labelmap.txt", "class_dict.csv")  # of CVAT, and of many sets for semantic segmentation
_COLOUR_LINE = re.compile(r"([^#:,][^:,]*)[:,]\s*(\d+),\s*(\d+),\s*(\d+)")
_NO_CLASSES = ("__ignore__", "_background_", "background", "void")
_VOID = 255  # in VOC's masks and many others: not annotated
_BLACK, _WHITE = 40, 0.6  # of 255: shades near black; the share of all others that has to be near white
_ENDING = re.compile(
    r"[_-]?(masks?|labels?|gt|seg|segmentation|instances?|instanceids)([_-]\d+)?$", re.IGNORECASE
)
_MOST_NUMBERS = 2000  # of objects in an image: more are shades, of a JPEG for one
_SPECK = 10  # pixels: parts that are no larger are slips of a brush
_FEW = 8  # shades that a mask of numbers may have and yet look black and white


def find_masks(root: Path) -> Readers:
    """Finds images in a folder with a usual name, and their masks in another."""
    if root.is_file():
        return {}
    files = [path for path in sorted(root.rglob("*")) if is_image(path)]
    masks_of, class_of = _match(root, files)
    if not masks_of:
        return {}
    classes = _Classes(tuple(sorted({*class_of.values()})), class_of) if class_of else _read_classes(root)
    every = [_class_mask(path) for paths in masks_of.values() if len(paths) == 1 for path in paths]
    classes = replace(classes, used=cache(partial(_numbers_of, every)))
    return {
        split: partial(_read_masks, root, {image: masks_of[image] for image in part}, classes)
        for split, part in by_folder(root, list(masks_of)).items()
    }


@dataclass(frozen=True)
class _Classes:
    """The names of classes in their order, and what has them: masks in folders, or colours in a file."""

    names: tuple[str, ...] = ()
    masks: Mapping[Path, str] = field(default_factory=dict)
    colours: Mapping[int, str] = field(default_factory=dict)
    path: Path | None = None
    used: Callable[[], set[int]] = set  # the numbers in the masks of all splits

    def of(self, numbers: Collection[int]) -> dict[int, str]:
        """The name of each number in the masks. Raises GCNetError where the names do not fit.

        They are colours, or 1, 2, ... in the order of the names, or as many numbers as there are names.
        """
        if len(self.names) < 2 and not self.colours:
            return dict.fromkeys(numbers, self.names[0] if self.names else "object")
        used = self.used().union(numbers)
        if self.colours.keys() >= used:
            return dict(self.colours)
        if max(used, default=0) <= len(self.names):
            return dict(enumerate(self.names, start=1))
        if len(used) == len(self.names):
            return dict(zip(sorted(used), self.names, strict=True))
        found = listed(list(map(str, sorted(used))), 4)
        raise GCNetError(
            f"{self.path} names {len(self.names)} classes, but the masks have the numbers {found}: give a "
            "line for each number, in their order"
        )


def _read_classes(root: Path) -> _Classes:
    path = next((path for name in (*_COLOURS, *_NAMES) if (path := root / name).is_file()), None)
    if path is None:
        return _Classes()
    if path.name in _NAMES:
        return _Classes(
            tuple(name for name in read_lines(path) if name.lower() not in _NO_CLASSES), path=path
        )
    lines = [found.groups() for line in read_lines(path) if (found := _COLOUR_LINE.match(line))]
    colours = {int(r) + 256 * int(g) + 65536 * int(b): name.strip() for name, r, g, b in lines}
    shades = _without_colour(np.array(list(colours))).tolist()
    named = {
        n: name for n, name in zip(shades, colours.values(), strict=True) if name.lower() not in _NO_CLASSES
    }
    return _Classes(tuple(named.values()), colours=named, path=path)


def _match(root: Path, files: Sequence[Path]) -> tuple[dict[Path, list[Path]], dict[Path, str]]:
    """The masks of each image that has any, and the class of masks in folders of classes.

    Other images beside these are counted.
    """
    parts_of = {path: path.relative_to(root).parts[:-1] for path in files}
    objects = any(_OBJECT_MASKS in parts for parts in parts_of.values())
    stems = {path.with_suffix("") for path in files}
    images: dict[tuple[str, ...], Path] = {}  # by folder and stem
    masks: list[Path] = []
    for path, parts in parts_of.items():
        if any(words_of(part)[-1] in _MASKS for part in parts):
            if not (objects and _CLASS_MASKS in parts):
                masks.append(path)
        elif any(
            path.with_name(stem) in stems for stem in _stems(path.stem)[1:] if _ENDING.search(path.stem)
        ):
            masks.append(path)  # a_mask.png beside a.jpg
        else:
            images[(*_without(parts), path.stem)] = path
    labels: dict[tuple[str, ...], list[Path]] = {}
    folders: dict[tuple[str, ...], list[Path]] = {}
    class_of: dict[Path, str] = {}
    for path in masks:
        where = _without(parts_of[path])
        folders.setdefault(where, []).append(path)
        keys = [(*place, stem) for place in (where, where[:-1]) for stem in _stems(path.stem)]
        if key := next((key for key in keys if key in images), None):
            labels.setdefault(key, []).append(path)
            if len(key) == len(where):  # masks/cat/a.png of images/a.jpg
                class_of[path] = where[-1]
    counts = Counter(key[:-1] for key in images)
    found = {}
    for key, path in images.items():
        where = key[:-1]
        own = labels.get(key) or folders.get(key)
        if not own and where and counts[where] == 1:
            own = folders.get(where)
        if own:
            found[path] = own
    beside = {path.parent for path in found}
    if left := [path for path in images.values() if path.parent in beside and path not in found]:
        log.warning(
            "%s: %d of %d images have no mask; left out (first: %s)",
            root,
            len(left),
            len(found) + len(left),
            shown(left[0].relative_to(root).as_posix()),
        )
    return found, class_of


def _stems(stem: str) -> list[str]:
    """What the image of a mask may be called: as it, or without `_mask`, a number, or both."""
    bare = _NUMBERED.sub("", stem)
    return [one for one in dict.fromkeys([stem, _ENDING.sub("", stem), bare, _ENDING.sub("", bare)]) if one]


def _without(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts without what says that images or masks are in them: `train` of `train_masks`."""
    kinds = (*_IMAGES, *_MASKS)
    words = [words_of(part) for part in parts]
    rest = (words[:-1] if words[-1] in kinds else words for words in words)
    return tuple("_".join(words) for words in rest if words)


@dataclass
class _Found:
    """What is in the masks of an image: areas with their numbers.

    Also how many numbers are several areas each, and how many areas are too small to be objects.
    """

    size: tuple[int, int]
    objects: list[tuple[int, dict[str, Any]]]
    scattered: int = 0
    specks: int = 0


def _read_masks(root: Path, masks_of: dict[Path, list[Path]], classes: _Classes) -> Source:
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(image_size, masks_of))
        fitting = list(pool.map(_of_size, masks_of.values(), sizes))
        if left_out := sum(map(len, masks_of.values())) - sum(map(len, fitting)):
            log.warning("%s: %d masks are not of their image's size; left out", root, left_out)
        masks_of = dict(zip(masks_of, fitting, strict=True))
        numbers = list(pool.map(_numbers, [masks[0] for masks in fitting if len(masks) == 1]))
        binary = bool(numbers) and len(set().union(*numbers)) == 1
        by_class = any(_OBJECT_MASKS in path.parts for paths in masks_of.values() for path in paths)
        by_area = not by_class and (binary or len(classes.names) > 1)
        found = list(pool.map(partial(_objects, classes=classes, by_area=by_area), fitting, sizes))
    if not (classes.names or by_area or by_class) and sum(one.scattered for one in found) * 2 > sum(
        map(len, numbers)
    ):
        raise GCNetError(
            f"{root}: most numbers in its masks are of several areas: are they classes? Then put a "
            "classes.txt there, with the names of 1, 2, ..., a line each; if objects, with the name of all"
        )
    if binary and by_area:
        log.warning("%s: its masks are black and white; each area that hangs together is an object", root)
    if specks := sum(one.specks for one in found):
        log.warning("%s: %d areas of up to %d pixels are left out", root, specks, _SPECK)
    names = classes.of({number for one in found for number, _ in one.objects})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id, (path, one) in enumerate(zip(masks_of, found, strict=True), start=1):
        height, width = one.size
        images.append({"id": id, "file_name": str(path.absolute()), "height": height, "width": width})
        for place, (number, rle) in enumerate(one.objects):
            entry = {"id": f"{path.stem}:{place}", "image_id": id, "category_id": names[number]}
            annotations.append(entry | {"segmentation": rle})
    return Source.of_names(root, root, images, annotations, classes.names)


def _of_size(masks: Sequence[Path], size: tuple[int, int]) -> list[Path]:
    """Those of an image's size: a few bytes can say any other, and would take memory for it."""
    return [mask for mask in masks if image_size(mask) == size]


def _numbers_of(paths: Sequence[Path]) -> set[int]:
    with ThreadPoolExecutor(8) as pool:
        return set().union(*pool.map(_numbers, paths))


def _numbers(path: Path) -> set[int]:
    """The numbers in a mask, without those of the background, 0, and of what is not annotated."""
    numbers = set(np.unique(_read(path)).tolist()) - {0}
    if len(numbers) > _MOST_NUMBERS:
        raise GCNetError(f"{path} has {len(numbers)} values: no mask; save masks as PNG, without smoothing")
    return _annotated(numbers)


def _annotated(numbers: set[int]) -> set[int]:
    """Those of objects or classes: 255 beside others that do not reach up to it is void."""
    return numbers - {_VOID} if len(numbers) > 1 and _VOID - 1 not in numbers else numbers


def _read(path: Path) -> Integer[np.ndarray, "H W"]:
    """The numbers of a mask; of a black and white one that is a JPEG or smoothed, 0 and 255.

    Raises GCNetError for another JPEG, which changes numbers.
    """
    mask = _without_colour(read_index_mask(path))
    if mask.size == 0 or mask.max() > _VOID or len(shades := np.unique(mask)) <= 2:
        return mask
    white = int(shades[-1])
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    bright, dark = mask > white - _BLACK, mask <= (_BLACK if is_jpeg else 0)
    between = (~bright & ~dark).astype(np.uint8)
    within = cv2.erode(between, np.ones((7, 7), np.uint8)).any()  # shades along edges are thin
    two = white > 2 * _BLACK and bright.sum() > _WHITE * (mask > _BLACK).sum() and not within
    if two and (is_jpeg or len(shades) > _FEW):
        return np.where(mask > white // 2, _VOID, 0)
    if is_jpeg:
        raise GCNetError(f"{path} is a JPEG, which changes the numbers of a mask; save masks as PNG")
    return mask


def _without_colour(numbers: Integer[np.ndarray, " ..."]) -> Integer[np.ndarray, " ..."]:
    """Numbers where gray that is stored as a colour (0x050505) is its shade (5)."""
    if numbers.size == 0 or numbers.max() <= _VOID:
        return numbers
    shades = numbers.astype(np.int64) & 255
    return np.where(numbers == shades * 0x010101, shades, numbers)


def _objects(paths: Sequence[Path], size: tuple[int, int], *, classes: _Classes, by_area: bool) -> _Found:
    if classes.masks:  # one a class
        parts = [_objects([path], size, classes=_Classes(), by_area=True) for path in paths]
        numbers = [1 + classes.names.index(classes.masks[path]) for path in paths]
        objects = [(n, rle) for n, part in zip(numbers, parts, strict=True) for _, rle in part.objects]
        return _Found(size, objects, specks=sum(part.specks for part in parts))
    if len(paths) > 1:  # one an object
        areas = (_read(path) != 0 for path in paths)
        return _Found(size, [(1, mask_to_rle(area)) for area in areas if area.any()])
    found = _Found(size, [])
    mask = _read(paths[0]) if paths else np.zeros((0, 0), np.uint8)
    for number in sorted(_annotated(set(np.unique(mask).tolist()) - {0})):
        area = mask == number
        count, labels, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
        large = stats[1:, cv2.CC_STAT_AREA] > _SPECK
        found.scattered += int(large.sum()) > 1
        found.specks += int((~large).sum()) if by_area else 0
        parts = (labels == label for label in range(1, count) if large[label - 1]) if by_area else [area]
        found.objects += [(_class_number(paths[0], area, number), mask_to_rle(part)) for part in parts]
    return found


def _class_number(path: Path, area: Bool[np.ndarray, "H W"], number: int) -> int:
    """The most frequent number there in the mask of classes that goes with one of objects."""
    other = _class_mask(path)
    if other == path:
        return number
    classes = read_mask(other, (area.shape[0], area.shape[1]))
    if classes is None:
        raise GCNetError(f"{other} is not of the size of {path}; export both again")
    numbers, counts = np.unique(_without_colour(classes[area]), return_counts=True)
    return int(numbers[counts.argmax()])


def _class_mask(path: Path) -> Path:
    """The mask of classes that goes with one of objects; others are their own."""
    if _OBJECT_MASKS not in path.parts:
        return path
    place = path.parts.index(_OBJECT_MASKS)
    return Path(*path.parts[:place], _CLASS_MASKS, *path.parts[place + 1 :])
