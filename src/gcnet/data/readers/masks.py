"""Reads folders of masks: one image of numbers for each image, or one black and white image for each object.

In `masks/a.png` of `images/a.jpg` each number or colour is an object; in a black and white mask, each
connected area. Several masks in `masks/a/`, or in `a/masks/` beside `a/images/a.png`, are one object each. A
`classes.txt`, CVAT's `labelmap.txt` or a `class_dict.csv` names the classes, or folders do.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Integer

from gcnet.data.dataset import split_of
from gcnet.data.folders import files_below
from gcnet.data.listed_images import NO_SIZE, own_size
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import THREADS, readable
from gcnet.data.readers.mask_classes import COLOURED, GRAY, Classes, how_to_name, read_classes
from gcnet.data.readers.shapes import place_mask
from gcnet.data.readers.splits import Readers, by_folder
from gcnet.data.source import Source, warn, warn_of_some
from gcnet.errors import GCNetError
from gcnet.image_files import MASK_FOLDERS, is_image
from gcnet.ops.decode import image_size, is_coloured, read_index_mask

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pngimages")
_OBJECT_MASKS, _CLASS_MASKS = "SegmentationObject", "SegmentationClass"  # of labelme2voc
_MASKS = (*MASK_FOLDERS, "labels", "label", "annotations")  # these three may be anything
_KINDS = ("instance", "instances", "object", "objects", "semantic", "binary")  # of masks, no classes
_NUMBERED = re.compile(r"[_-]\d+$")
_VOID, _LAST = 255, 150  # not annotated, in VOC's masks and others, where objects go up to this at most
_BLACK, _WHITE = 40, 128  # shades: up to this near black, and within as much of white, which is this at least
_ENDING = re.compile(
    r"[_-]?(masks?|labels?|gt|seg|segmentation|instances?|instanceids)([_-]\d+)?$", re.IGNORECASE
)
_MOST_NUMBERS = 2000  # of objects in an image: more are shades
_SPECK = 10  # pixels: parts that are no larger are slips of a brush,
_LARGE = 100  # if most are larger than this
_FEW = 8  # shades that a mask of numbers may have and yet look black and white


def find_masks(root: Path) -> Readers:
    """Finds images, and their masks in another folder or of another name."""
    if root.is_file():
        return {}
    files = sorted(filter(is_image, files_below(root)))
    masks_of, class_of = _match(root, files)
    if not masks_of:
        return {}
    classes = Classes(tuple(sorted({*class_of.values()})), class_of) if class_of else read_classes(root)
    single = [(image, paths[0]) for image, paths in masks_of.items() if len(paths) == 1]
    used = cache(partial(_numbers_of, single))
    of_classes = [(image, _class_mask(path)) for image, path in single]
    named = used if of_classes == single else cache(partial(_numbers_of, of_classes))
    return {
        split: partial(_read_masks, root, {image: masks_of[image] for image in part}, classes, used, named)
        for split, part in by_folder(root, list(masks_of)).items()
    }


# Which masks are of which image -----------------------------------------------------------------------

Place = tuple[str, ...]  # folders without what says that images or masks are in them, and a stem


def _match(root: Path, files: Sequence[Path]) -> tuple[dict[Path, list[Path]], dict[Path, str]]:
    """The masks of each image that has any, and the class of masks in folders of classes.

    Other images beside these are counted, and other masks.
    """
    images, masks = _tell_apart(root, files)
    in_folder: dict[Place, list[Path]] = {}
    by_name: dict[Place, list[Path]] = {}
    by_class: dict[Place, dict[Path, str]] = {}
    for path in masks:
        where = _without(path.relative_to(root).parts[:-1])
        in_folder.setdefault(where, []).append(path)
        if where in images:  # masks/a/1.png of images/a.jpg
            continue
        if key := _image_of(path, where, images):
            by_name.setdefault(key, []).append(path)
        elif where and (key := _image_of(path, where[:-1], images)):  # masks/cat/a.png of images/a.jpg
            by_class.setdefault(key, {})[path] = where[-1]
    classes = {path: name for named in by_class.values() for path, name in named.items()}
    if by_name or all(map(split_of, classes.values())):
        # masks/train/a.png of images/a.jpg, or masks of another kind
        by_name = {key: list(named) for key, named in by_class.items()} | by_name
        by_class, classes = {}, {}
    count = Counter(key[:-1] for key in images)
    folder_each = len(count) > 1 and max(count.values()) == 1  # 1/images/1.png with 1/masks/0.png and 1.png
    found: dict[Path, list[Path]] = {}
    for key, paths in images.items():
        own = by_name.get(key) or in_folder.get(key) or list(by_class.get(key, ()))
        if len(key) > 1 and count[key[:-1]] == 1 and (folder_each or not own):
            own = in_folder.get(key[:-1]) or own
        found |= dict.fromkeys(paths, own) if own else {}
    beside = {path.parent for path in found}
    every = [path for paths in images.values() for path in paths]
    left = [path for path in every if path.parent in beside and path not in found]
    warn_of_some(root, left, len(found) + len(left), "images have no mask; left out")
    used = {path for own in found.values() for path in own}
    unused = [path for path in masks if path not in used] if found else []
    warn_of_some(root, unused, len(masks), "masks are of no image and not read")
    return found, classes


def _image_of(mask: Path, folder: Place, images: Collection[Place]) -> Place | None:
    return next((key for stem in _stems(mask.stem) if (key := (*folder, stem)) in images), None)


def _tell_apart(root: Path, files: Sequence[Path]) -> tuple[dict[Place, list[Path]], list[Path]]:
    """The images, by place, and the masks: by their folders, or by a name such as `a_mask.png` of `a.jpg`."""
    kinds = {path: _kind(path.relative_to(root).parts[:-1]) for path in files}
    needs_folder = "images" in kinds.values()
    stems = {path.with_suffix("") for path in files}
    images: dict[Place, list[Path]] = {}
    masks: list[Path] = []
    for path, kind in kinds.items():
        others = _stems(path.stem)[1:] if kind is None and re.search("[_-]mask", path.stem.lower()) else []
        if _CLASS_MASKS in path.parts and _object_mask(path) in kinds:
            continue  # it says what the objects are
        if kind == "masks" or any(path.with_name(stem) in stems for stem in others):
            masks.append(path)
        elif kind == "images" or not needs_folder:
            place = (*_without(path.relative_to(root).parts[:-1]), path.stem)
            images.setdefault(place, []).append(path)
    return images, masks


def _kind(parts: Place) -> str | None:
    """Whether files in these folders are images or masks, by the first name that says so, or a last word."""
    names = [part.lower() for part in parts]
    for name in names:
        if name in _IMAGES or name in _MASKS:
            return "images" if name in _IMAGES else "masks"
    last = [re.split("[ _-]", name)[-1] for name in names]
    return "masks" if {*last} & {*_MASKS} else "images" if {*last} & {*_IMAGES} else None


def _stems(stem: str) -> list[str]:
    """What the image of a mask may be called: as it, or without `_mask`, a number, or both."""
    bare = _NUMBERED.sub("", stem)
    return [one for one in dict.fromkeys([stem, _ENDING.sub("", stem), bare, _ENDING.sub("", bare)]) if one]


def _without(parts: Place) -> Place:
    """The parts without words for images or masks: `train` of `train_masks` and of `train_data`."""
    rest = []
    for part in parts:
        words = re.split("[ _-]", part.lower())
        if words[-1] in (*_IMAGES, *_MASKS, *(["data"] if len(words) > 1 else [])):
            words = words[:-1]
            words = words[:-1] if words and words[-1] in _KINDS else words
        if words:
            rest.append("_".join(words))
    return tuple(rest)


# What is in masks ---------------------------------------------------------------------------------------


@dataclass
class _Found:
    """The areas in the masks of an image with numbers and pixels, and how many numbers are scattered.

    `misfits`: how many masks are of another size. `corners`: whether an area is in each corner of the image.
    """

    size: tuple[int, int]
    objects: list[tuple[int, dict[str, Any], int]]
    misfits: int = 0
    scattered: int = 0
    numbers: int = 0
    corners: bool = False


def _read_masks(
    root: Path,
    masks_of: dict[Path, list[Path]],
    classes: Classes,
    numbers_of: Callable[[], Counter[int]],
    class_numbers_of: Callable[[], Counter[int]],
) -> Source:
    with ThreadPoolExecutor(THREADS) as pool:
        counts, named = numbers_of(), set(class_numbers_of())
        used = set(counts)
        of_objects = any(_OBJECT_MASKS in path.parts for paths in masks_of.values() for path in paths)
        void = _void(named, len(classes.names)) | (_void(used, 0) if of_objects else set())
        slips = {number for number in used if counts[number] <= _SPECK}
        binary = len(used - void - slips) == 1 and not of_objects
        by_area = binary or len(classes.names) > 1
        look = partial(_objects, masks_of, classes=classes, by_area=by_area, void=void)
        each = readable(masks_of, look, pool.map)
    found = [one for _, one in each]
    if left_out := sum(one.misfits for one in found if one.size != NO_SIZE):
        warn(root, f"{left_out} masks are not of their image's size; left out")
    scattered, numbers = sum(one.scattered for one in found), sum(one.numbers for one in found)
    if not (classes.names or by_area or of_objects) and scattered * 2 > numbers:
        raise GCNetError(
            f"{root}: most numbers in its masks are of several areas: are they classes? Then put there "
            f"{how_to_name(used - void)}; if objects, a classes.txt with the name of all"
        )
    if binary:
        warn(root, "its masks are black and white; each area that hangs together is an object")
        around = sum(one.corners for one in found)
        if around * 2 > len(found):
            share = f"{around} of {len(found)} masks are white in all corners"
            warn(root, f"{share}; invert them if white is around the objects")
    if void:
        warn(root, "255 beside smaller numbers is taken for what is not annotated")
    specks = _specks([pixels for one in found for _, _, pixels in one.objects]) if by_area else 0
    if specks:
        warn(root, f"{specks} areas of up to {_SPECK} pixels are left out")
    seen = {number for one in found for number, _, _ in one.objects}
    names = dict(enumerate(classes.names, start=1)) if classes.masks else classes.of((named | seen) - void)
    entries = Entries()
    for path, one in each:
        height, width = one.size
        entries.add_image(str(path.absolute()), width, height)
        for place, (number, outline, pixels) in enumerate(one.objects):
            # Of no name are background and void, where the mask of classes has them.
            if (name := names.get(number)) and not (specks and pixels <= _SPECK):
                entries.add_object(f"{path.stem}:{place}", name, outline)
    return entries.source(root, root, classes.names)


def _void(used: set[int], names: int) -> set[int]:
    """255, where the other numbers are small and begin with 1, unless there are as many names as numbers."""
    others = used - {_VOID}
    is_void = _VOID in used and len(used) != names and min(others, default=0) == 1 and max(others) <= _LAST
    return {_VOID} if is_void else set()


def _specks(pixels: Sequence[int]) -> int:
    """How many areas are too small to be objects; none where most are small."""
    return sum(one <= _SPECK for one in pixels) if pixels and np.median(pixels) > _LARGE else 0


def _numbers_of(pairs: Sequence[tuple[Path, Path]]) -> Counter[int]:
    """The numbers in the masks but that of the background, 0, each with the most pixels it has in one."""
    with ThreadPoolExecutor(THREADS) as pool:
        return reduce(operator.or_, pool.map(_numbers, pairs), Counter())


def _numbers(pair: tuple[Path, Path]) -> Counter[int]:
    image, path = pair
    try:
        if not path.is_file() or image_size(path) != own_size(image):
            return Counter()
        numbers, pixels = np.unique(_read(path), return_counts=True)
    except GCNetError:  # its image is left out when objects are looked for
        return Counter()
    found = Counter(dict(zip(numbers.tolist(), pixels.tolist(), strict=True)))
    del found[0]
    if len(found) > _MOST_NUMBERS:
        raise GCNetError(f"{path} has {len(found)} values: no mask; save masks as PNG, without smoothing")
    return found


def _read(path: Path) -> Integer[np.ndarray, "H W"]:
    """The numbers of a mask, with `COLOURED` those of colours. Gray that is stored as a colour is its shade.

    A black and white mask that is a JPEG or smoothed has 0 and 255. Raises GCNetError for another JPEG, which
    changes numbers.
    """
    mask = read_index_mask(path)
    if is_coloured(path):
        shades = mask & 255
        if not (mask == shades * GRAY).all():
            return np.where(mask > 0, mask + COLOURED, 0)
        mask = shades.astype(np.uint8)
    shades = np.unique(mask)
    white = int(shades[-1]) if shades.size else 0
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    if _WHITE <= white <= _VOID and len(shades) > (2 if is_jpeg else _FEW):
        bright = (mask > white - _BLACK).astype(np.uint8)
        around = cv2.dilate(bright, np.ones((11, 11), np.uint8))  # shades are along its edges
        if bright.any() and not (around[mask > (_BLACK if is_jpeg else 0)] == 0).any():
            return np.where(mask > white // 2, np.uint8(_VOID), np.uint8(0))
    if is_jpeg and white <= _BLACK:
        return np.zeros_like(mask)
    if is_jpeg and len(shades) > 2:
        raise GCNetError(f"{path} is a JPEG, which changes the numbers of a mask; save masks as PNG")
    return mask


def _objects(
    masks_of: dict[Path, list[Path]], image: Path, *, classes: Classes, by_area: bool, void: set[int]
) -> _Found:
    size = own_size(image)
    # A few bytes can say any other size, and would take memory for it.
    paths = [path for path in masks_of[image] if image_size(path) == size]
    found = _Found(size, [], misfits=len(masks_of[image]) - len(paths))
    for path in paths:
        mask = _read(path)
        found.corners |= bool(mask[[0, 0, -1, -1], [0, -1, 0, -1]].all())
        alone = len(paths) > 1 and not classes.masks  # one an object
        area_each = by_area and not alone and _class_mask(path) == path
        mask = (mask != 0).astype(np.uint8) if len(paths) > 1 else mask
        for number in sorted(set(np.unique(mask).tolist()) - void - {0}):
            area = mask == number
            x, y, width, height = cv2.boundingRect(area.astype(np.uint8))  # what follows takes longer
            inside = area[y : y + height, x : x + width].astype(np.uint8)
            _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
            pixels = stats[1:, cv2.CC_STAT_AREA].tolist()
            found.numbers += not alone
            found.scattered += not alone and sum(one > _SPECK for one in pixels) > 1
            if classes.masks:
                number = 1 + classes.names.index(classes.masks[path])
            elif len(classes.names) > 1 or _class_mask(path).is_file():
                number = _class_number(path, area, number)
            if area_each or classes.masks:
                for label, (left, top, across, down, one) in enumerate(stats[1:].tolist(), start=1):
                    part = labels[top : top + down, left : left + across] == label
                    found.objects.append((number, place_mask(part, x + left, y + top, size), one))
            else:
                found.objects.append((number, place_mask(inside, x, y, size), sum(pixels)))
    return found


def _class_number(path: Path, area: Bool[np.ndarray, "H W"], number: int) -> int:
    """The most frequent number there in the mask of classes that goes with one of objects."""
    other = _class_mask(path)
    if other == path:
        return number
    if image_size(other) != area.shape:
        raise GCNetError(f"{other} is not of the size of {path}; export both again")
    numbers, counts = np.unique(_read(other)[area], return_counts=True)
    return int(numbers[counts.argmax()])


def _class_mask(path: Path) -> Path:
    """The mask of classes that goes with one of objects; others are their own."""
    return Path(*(_CLASS_MASKS if part == _OBJECT_MASKS else part for part in path.parts))


def _object_mask(path: Path) -> Path:
    return Path(*(_OBJECT_MASKS if part == _CLASS_MASKS else part for part in path.parts))
