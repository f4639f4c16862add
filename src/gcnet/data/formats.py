"""Annotations that are not COCO's: YOLO and Darknet, LabelMe, VIA, Pascal VOC, CVAT's XML.

A function a format: it finds the splits of a folder, and gives for each how it is read into a `Source`, in
COCO's words; nothing where there is nothing of the format. What is wrong with entries is found later, in
`gcnet.data.annotations`.
"""

from __future__ import annotations

import base64
import itertools
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from gcnet.data.annotations import Source
from gcnet.data.coco import read_json
from gcnet.data.dataset import WHOLE, name_splits
from gcnet.errors import GCNetError
from gcnet.image_files import is_image
from gcnet.ops.decode import image_size, read_index_mask
from gcnet.ops.segmentations import mask_to_rle

Readers = dict[str, Callable[[], Source]]


# YOLO ----------------------------------------------------------------------------------------------------


def find_yolo(root: Path) -> Readers:
    """Ultralytics' `data.yaml`, Darknet's `obj.data`: `labels/a.txt` of `images/a.jpg`, a line an object."""
    patterns = ("*.yaml", "*.yml", "*.data", "*/*.data")
    for path in [root] if root.is_file() else sorted(path for one in patterns for path in root.glob(one)):
        content = _read_darknet(path) if path.suffix == ".data" else _read_yaml(path)
        if content.get("names") and (content.get("train") or content.get("val")):
            return _yolo_splits(path, content)
    return {}


def _yolo_splits(path: Path, content: dict[str, Any]) -> Readers:
    names = content["names"]
    listed = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    categories = [{"id": int(id), "name": str(name)} for id, name in listed.items()]
    readers: Readers = {}
    for split, keys in (("train", ["train"]), ("valid", ["val", "valid"]), ("test", ["test"])):
        value = next((content[key] for key in keys if content.get(key)), None)
        if value is not None:
            places = [str(place) for place in (value if isinstance(value, list) else [value])]
            found = [image for place in places for image in _yolo_images(path, content.get("path"), place)]
            if found or split == "train":
                readers[split] = partial(_read_yolo, path, found, categories)
    same = content.get("train") == (content.get("val") or content.get("valid"))
    return {WHOLE: readers["train"]} if same else readers


def _yolo_images(path: Path, base: str | None, place: str) -> list[Path]:
    """The images of a folder or of a list of files, which is seen from the file, its `path` or a level up."""
    inside = place.lstrip("./") if place.startswith(".") else place
    bases = [path.parent / (base or ""), path.parent, path.parent.parent]
    for found in [folder / name for folder in bases for name in (place, inside)]:
        if found.is_dir():
            return sorted(image for image in found.rglob("*") if is_image(image))
        if found.is_file():
            lines = [line.strip() for line in found.read_text().splitlines() if line.strip()]
            return [_existing([folder / line for folder in (*bases, found.parent)]) for line in lines]
    return []


def _existing(paths: Sequence[Path]) -> Path:
    return next((path for path in paths if path.is_file()), paths[0])


def _read_yolo(path: Path, images: Sequence[Path], categories: list[dict[str, Any]]) -> Source:
    if not images:
        raise GCNetError(f"{path}: its training images are not there; correct `train` in it, or `path`")
    entries, annotations = [], []
    for id, image in enumerate(images, start=1):
        height, width = image_size(image)
        entries.append({"id": id, "file_name": str(image.absolute()), "width": width, "height": height})
        parts = image.with_suffix(".txt").parts
        last = max((i for i, part in enumerate(parts) if part == "images"), default=None)
        beside = Path(*parts)
        labels = beside if last is None else Path(*parts[:last], "labels", *parts[last + 1 :])
        labels = labels if labels.is_file() else beside
        lines = labels.read_text().splitlines() if labels.is_file() else []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                entry = {"id": f"{labels.name}:{number}", "image_id": id}
                annotations.append(entry | _yolo_object(line.split(), width, height))
    return Source(path, path.parent, entries, annotations, categories)


def _yolo_object(words: Sequence[str], width: int, height: int) -> dict[str, Any]:
    """An outline of x, y pairs, or a box by its middle and size, all as shares of the image."""
    try:
        label, *numbers = map(float, words)
    except ValueError:
        return {}
    if len(numbers) in (4, 5):  # the fifth is a score
        x, y, w, h = numbers[:4]
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return {"category_id": label, "bbox": box}
    points = [value * side for value, side in zip(numbers, itertools.cycle((width, height)), strict=False)]
    return {"category_id": label, "segmentation": [points]}


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_darknet(path: Path) -> dict[str, Any]:
    """`key = value` lines; the names are in a file of their own."""
    pairs = [line.split("=", 1) for line in path.read_text().splitlines() if "=" in line]
    content: dict[str, Any] = {key.strip(): value.strip() for key, value in pairs}
    names = str(content.get("names", ""))
    file = _existing([folder / name for folder in path.parents[:2] for name in (names, Path(names).name)])
    content["names"] = file.read_text().split("\n") if file.is_file() else []
    content["names"] = [name.strip() for name in content["names"] if name.strip()]
    content["val"] = content.get("valid")
    return content


# LabelMe -------------------------------------------------------------------------------------------------


def find_labelme(root: Path) -> Readers:
    """A JSON an image, with its `shapes`, in a folder a split or all in one."""

    def is_labelme(path: Path) -> bool:
        with open(path, "rb") as file:
            head = file.read(1 << 12)
        return b'"shapes"' in head or (b'"imageData"' in head and b'"imagePath"' in path.read_bytes())

    return _a_file_an_image(root, "json", is_labelme, _read_labelme)


def _read_labelme(folder: Path, files: Sequence[Path]) -> Source:
    images, annotations, labels = [], [], {}
    for id, path in enumerate(files, start=1):
        content = read_json(path)
        name = str(content.get("imagePath") or "").replace("\\", "/")
        places = [path.parent / name, *(path.with_suffix(suffix) for suffix in (".jpg", ".png", ".jpeg"))]
        image = _existing([place for place in places if name or place != path.parent])
        size = {"width": content.get("imageWidth"), "height": content.get("imageHeight")}
        images.append({"id": id, "file_name": str(image.absolute()), **size})
        groups: dict[Any, list[dict[str, Any]]] = {}
        for number, shape in enumerate(content.get("shapes") or []):
            group = shape.get("group_id")
            key = number if group is None else f"group {group}"
            groups.setdefault((key, shape.get("label")), []).append(shape)
        for (number, label), shapes in groups.items():
            if str(label) in ("__ignore__", "_background_"):
                continue
            category = labels.setdefault(str(label), len(labels) + 1)
            entry = {"id": f"{path.name}:{number}", "image_id": id, "category_id": category}
            annotations.append(entry | _labelme_object(shapes, content))
    return _named(Source(folder, folder, images, annotations, []), labels)


def _labelme_object(shapes: Sequence[dict[str, Any]], content: dict[str, Any]) -> dict[str, Any]:
    """Polygons, rectangles and circles of one object, which may have several parts; or a mask."""
    polygons = []
    for shape in shapes:
        points, kind = shape.get("points") or [], shape.get("shape_type", "polygon")
        if kind == "mask" and shape.get("mask") and len(points) == 2:
            return _labelme_mask(shape["mask"], points, content)
        if kind == "rectangle" and len(points) == 2:
            (x1, y1), (x2, y2) = points
            points = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
        elif kind == "circle" and len(points) == 2:
            (x, y), edge = points
            radius = math.dist((x, y), edge)
            points = _ellipse(x, y, radius, radius)
        elif kind not in ("polygon", "rectangle"):  # points and lines have no area
            continue
        polygons.append([value for point in points for value in point])
    return {"segmentation": polygons}


def _labelme_mask(encoded: str, points: Sequence[Sequence[float]], content: dict[str, Any]) -> dict[str, Any]:
    data = np.frombuffer(base64.b64decode(encoded), np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        return {}
    x, y = (round(value) for value in points[0])
    whole = np.zeros((int(content["imageHeight"]), int(content["imageWidth"])), np.uint8)
    part = whole[y : y + mask.shape[0], x : x + mask.shape[1]]
    part[:] = mask[: part.shape[0], : part.shape[1]] > 0
    return {"segmentation": mask_to_rle(whole)}


# VIA -----------------------------------------------------------------------------------------------------

_MOST_FILES = 100  # JSON that is looked at: VIA has one a split
_CLASS_KEYS = ("class", "label", "name", "category", "type", "object")


def find_via(root: Path) -> Readers:
    """VGG Image Annotator's `via_region_data.json` or project, one a split among its images, or one."""

    def is_via(path: Path) -> bool:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
        return b'"regions"' in head or b'"_via_' in head

    inside, here = sorted(root.glob("*/*.json"))[:_MOST_FILES], sorted(root.glob("*.json"))[:_MOST_FILES]
    found = [(path.parent.name, path) for path in inside if is_via(path)]
    found = found or [(path.name, path) for path in here if is_via(path)]
    splits = name_splits(root, found, shown=lambda path: path)
    if not splits and len(found) == 1:
        splits = {WHOLE: found[0][1]}
    return {split: partial(_read_via, path) for split, path in splits.items()}


def _read_via(path: Path) -> Source:
    content = read_json(path)
    content = content.get("_via_img_metadata", content)
    images, annotations, labels = [], [], {}
    for id, entry in enumerate(content.values(), start=1):
        if not isinstance(entry, dict) or "filename" not in entry:
            raise GCNetError(f"{path} is not VIA's: an entry has no filename; export the annotations as JSON")
        images.append({"id": id, "file_name": entry["filename"]})
        regions = entry.get("regions") or []
        for number, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
            label = _via_label(region.get("region_attributes") or {})
            category = labels.setdefault(label, len(labels) + 1)
            found = {"id": f"{entry['filename']}:{number}", "image_id": id, "category_id": category}
            annotations.append(found | _via_object(region.get("shape_attributes") or {}))
    folder = _folder_with(path.parent, [image["file_name"] for image in images])
    return _named(Source(path, folder, images, annotations, []), labels)


def _via_label(attributes: dict[str, Any]) -> str:
    """What a region is: its attribute of a usual name, or its first; "object" where it has none."""
    usual = [key for key in attributes if key.lower() in _CLASS_KEYS]
    for key in [*usual, *attributes]:
        value = attributes[key]
        if isinstance(value, dict):  # of checkboxes
            value = next((name for name, checked in value.items() if checked), "")
        if str(value).strip():
            return str(value).strip()
    return "object"


def _via_object(shape: dict[str, Any]) -> dict[str, Any]:
    kind = shape.get("name")
    if kind in ("polygon", "polyline"):
        pairs = zip(shape.get("all_points_x", ()), shape.get("all_points_y", ()), strict=False)
        return {"segmentation": [[value for pair in pairs for value in pair]]}
    if kind == "rect":
        return {"bbox": [shape.get(key) for key in ("x", "y", "width", "height")]}
    if kind in ("circle", "ellipse"):
        rx, ry = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        points = _ellipse(shape["cx"], shape["cy"], rx, ry, shape.get("theta", 0.0))
        return {"segmentation": [[value for point in points for value in point]]}
    return {}


# Pascal VOC ----------------------------------------------------------------------------------------------


def find_voc(root: Path) -> Readers:
    """`Annotations/*.xml` with `ImageSets` and perhaps masks in `SegmentationObject`; or XML among images."""
    bases = (root, *sorted(root.glob("*/")), *sorted(root.glob("VOCdevkit/*/")))
    base = next((path for path in bases if (path / "Annotations").is_dir()), None)
    if base is None:
        return _a_file_an_image(root, "xml", _is_voc, _read_voc)
    files = {path.stem: path for path in sorted((base / "Annotations").glob("*.xml"))}
    masked = (base / "SegmentationObject").is_dir()
    lists = base / "ImageSets" / ("Segmentation" if masked else "Main")
    found = [(name, lists / f"{name}.txt") for name in ("train", "val", "test", "trainval")]
    lists_found = [(name, path) for name, path in found if path.is_file()]
    splits = name_splits(root, lists_found, shown=lambda path: path)
    if not splits:
        return {WHOLE: partial(_read_voc, base, list(files.values()))} if files else {}
    readers: Readers = {}
    for split, path in splits.items():
        stems = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
        readers[split] = partial(_read_voc, base, [files[stem] for stem in stems if stem in files])
    return readers


def _is_voc(path: Path) -> bool:
    with open(path, "rb") as file:
        return b"<annotation>" in file.read(1 << 10)


def _read_voc(base: Path, files: Sequence[Path]) -> Source:
    images, annotations, labels = [], [], {}
    for id, path in enumerate(files, start=1):
        tree = _read_xml(path)
        name = tree.findtext("filename") or f"{path.stem}.jpg"
        places = [base / "JPEGImages", path.parent, path.parent.parent / "images", base]
        image = _existing([folder / name for folder in places])
        size = {side: tree.findtext(f"size/{side}") for side in ("width", "height")}
        unknown = {None, "", "0"} & set(size.values())
        images.append({"id": id, "file_name": str(image.absolute()), **({} if unknown else size)})
        file = base / "SegmentationObject" / f"{path.stem}.png"
        mask = read_index_mask(file) if file.is_file() else None
        for number, item in enumerate(tree.iter("object"), start=1):
            category = labels.setdefault(item.findtext("name", "").strip(), len(labels) + 1)
            entry = {"id": f"{path.name}:{number}", "image_id": id, "category_id": category}
            corners = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
            entry["bbox"] = _voc_box(corners)
            points = [float(point.text or "nan") for point in _polygon_points(item)]
            if mask is not None and (mask == number).any():
                entry["segmentation"] = mask_to_rle((mask == number).astype(np.uint8))
            elif points:
                entry["segmentation"] = [points]
            annotations.append(entry)
    return _named(Source(base, base, images, annotations, []), labels)


def _voc_box(corners: Sequence[str | None]) -> list[float] | None:
    """x, y, width, height. VOC counts pixels from 1, and the last one belongs to the box."""
    try:
        x1, y1, x2, y2 = (float(value or "") for value in corners)
    except ValueError:
        return None
    return [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]


def _polygon_points(item: ElementTree.Element) -> list[ElementTree.Element]:
    """Roboflow's `<polygon><x1>..</x1><y1>..</y1><x2>...`, in order."""
    polygon = item.find("polygon")
    points = [] if polygon is None else [point for point in polygon if re.fullmatch(r"[xy]\d+", point.tag)]
    return sorted(points, key=lambda point: (int(point.tag[1:]), point.tag[0]))


# CVAT ----------------------------------------------------------------------------------------------------


def find_cvat(root: Path) -> Readers:
    """`annotations.xml` of "CVAT for images"; an image may name its subset."""
    files = [root] if root.is_file() else sorted([*root.glob("*.xml"), *root.glob("*/annotations.xml")])
    found = [path for path in files if _is_cvat(path)]
    if not found:
        return {}
    if len(found) > 1:
        splits = name_splits(root, [(path.parent.name, path) for path in found], shown=lambda path: path)
        return {split: partial(_read_cvat, path, None) for split, path in splits.items()}
    tree = _read_xml(found[0])
    if tree.find("track") is not None and tree.find("image") is None:
        raise GCNetError(f"{found[0]} is CVAT's format for videos; export it as CVAT for images, or as COCO")
    subsets = {image.get("subset") for image in tree.iter("image")}
    named = name_splits(root, [(subset, subset) for subset in sorted(filter(None, subsets))], shown=str)
    if "train" not in named:
        return {WHOLE: partial(_read_cvat, found[0], None)}
    return {split: partial(_read_cvat, found[0], subset) for split, subset in named.items()}


def _is_cvat(path: Path) -> bool:
    with open(path, "rb") as file:
        return b"<annotations>" in file.read(1 << 10)


def _read_cvat(path: Path, subset: str | None) -> Source:
    tree = _read_xml(path)
    labels = {
        label.text or "": id for id, label in enumerate(tree.iterfind("meta//labels/label/name"), start=1)
    }
    images, annotations = [], []
    for id, image in enumerate(tree.iter("image"), start=1):
        if subset is not None and image.get("subset") != subset:
            continue
        size = {"width": image.get("width"), "height": image.get("height")}
        images.append({"id": id, "file_name": image.get("name"), **size})
        for number, shape in enumerate(image, start=1):
            if shape.tag in ("polygon", "box", "mask", "ellipse"):
                category = labels.setdefault(shape.get("label", ""), len(labels) + 1)
                entry = {"id": f"{image.get('name')}:{number}", "image_id": id, "category_id": category}
                annotations.append(entry | _cvat_object(shape, size))
    folder = _folder_with(path.parent, [str(image["file_name"]) for image in images], subset)
    return _named(Source(path, folder, images, annotations, []), labels)


def _cvat_object(shape: ElementTree.Element, size: dict[str, str | None]) -> dict[str, Any]:
    def number(key: str) -> float:
        return float(shape.get(key, "nan"))

    if shape.tag == "box":
        x, y = number("xtl"), number("ytl")
        return {"bbox": [x, y, number("xbr") - x, number("ybr") - y]}
    if shape.tag == "polygon":
        values = re.findall(r"[-+.\deE]+", shape.get("points", ""))
        return {"segmentation": [[float(value) for value in values]]}
    if shape.tag == "ellipse":
        points = _ellipse(number("cx"), number("cy"), number("rx"), number("ry"))
        return {"segmentation": [[value for point in points for value in point]]}
    # Runs of 0 and 1 in turns, along the rows of the mask's own box.
    left, top, width, height = (int(number(key)) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.get("rle", "").split(",")]
    values = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    whole = np.zeros((int(size["height"] or 0), int(size["width"] or 0)), np.uint8)
    whole[top : top + height, left : left + width] = values.reshape(height, width)
    return {"segmentation": mask_to_rle(whole)}


# What they share -----------------------------------------------------------------------------------------


def _a_file_an_image(
    root: Path,
    suffix: str,
    fits: Callable[[Path], bool],
    read: Callable[[Path, Sequence[Path]], Source],
) -> Readers:
    """Splits of a format with a file beside each image: those in folders of their names, or all in one."""
    folders = [(path.name, path) for path in sorted(root.iterdir()) if path.is_dir()]
    splits = name_splits(root, folders, shown=lambda path: path)
    readers: Readers = {}
    for split, folder in (splits or {WHOLE: root}).items():
        files = sorted(folder.rglob(f"*.{suffix}"))
        if files and fits(files[0]):
            readers[split] = partial(read, folder, [file for file in files if fits(file)])
    return readers


def _folder_with(parent: Path, names: Sequence[str], subset: str | None = None) -> Path:
    """The folder near `parent` that has most of the images."""
    folders = [parent, parent / "images", *([parent / "images" / subset] if subset else [])]
    return max(folders, key=lambda folder: sum((folder / name).is_file() for name in names[:20]))


def _named(source: Source, labels: dict[str, int]) -> Source:
    """The source with the classes that were met, in the order of their names."""
    order = {name: id for id, name in enumerate(sorted(labels), start=1)}
    new = {labels[name]: id for name, id in order.items()}
    for annotation in source.annotations:
        annotation["category_id"] = new[annotation["category_id"]]
    source.categories.extend({"id": id, "name": name} for name, id in order.items())
    return source


def _read_xml(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise GCNetError(f"{path} is not XML ({error}); export the annotations again") from None


def _ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> list[list[float]]:
    """An ellipse as a polygon of 32 points; the angle is in radians."""
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    across, down = rx * np.cos(turn), ry * np.sin(turn)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([x + across * cos - down * sin, y + across * sin + down * cos], 1).tolist()
