"""Writes data sets in COCO's and in YOLO's format, with copies of their images."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import yaml
from jaxtyping import Float

from gcnet.data.dataset import DataSet, ImageRecord, Instance
from gcnet.data.source import warn
from gcnet.errors import GCNetError
from gcnet.files import alone_in, prepare_folder, write_bytes
from gcnet.ops.decode import image_size
from gcnet.ops.segmentations import Segmentation, coco_mask, rle_to_mask

Format = Literal["coco", "yolo"]
FOLDERS = {"train": "train", "valid": "val", "test": "test"}


def write_splits(splits: Mapping[str, DataSet[ImageRecord]], out: Path, format: Format) -> None:
    """Writes all splits into the folder `out`, which is empty or not yet there.

    `coco`: `annotations/instances_train.json` beside `images/train/`. `yolo`: `data.yaml`, `images/train/`
    and `labels/train/`, with an outline a line, or a box where no outline is known; crowds are left out.

    Until all is written it lies in `out/.part`, which the next call removes if this one is killed.

    Raises GCNetError where the folder holds something or the disk does not take it.
    """
    prepare_folder(out)
    part = out / ".part"
    with alone_in(out):
        if any(path != part for path in out.iterdir()):
            raise GCNetError(f"{out} is not empty; give another folder")
        shutil.rmtree(part, ignore_errors=True)
        try:
            _write_all(splits, part, format)
            for path in sorted(part.iterdir(), reverse=True):  # images before the files that name them
                path.rename(out / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _write_all(splits: Mapping[str, DataSet[ImageRecord]], out: Path, format: Format) -> None:
    for split, dataset in splits.items():
        names = _copy_images(dataset.records, out / "images" / FOLDERS[split])
        if format == "coco":
            _write_coco(dataset, names, out / "annotations" / f"instances_{FOLDERS[split]}.json")
        else:
            _write_labels(dataset, names, out / "labels" / FOLDERS[split])
    if format == "yolo":
        paths = {key: f"images/{key}" for split, key in FOLDERS.items() if split in splits}
        names_of = dict(enumerate(next(iter(splits.values())).class_names))
        content = yaml.safe_dump({**paths, "names": names_of}, sort_keys=False, allow_unicode=True)
        write_bytes(out / "data.yaml", content.encode())


def _copy_images(records: Sequence[ImageRecord], folder: Path) -> list[str]:
    """The names of the copies: the images' own, with a number where two have one."""
    prepare_folder(folder)
    taken: set[str] = set()
    names = []
    for number, record in enumerate(records):
        if max(record.width, record.height) == 1:  # of unknown size: its objects could not be read
            image_size(record.path)  # raises what is wrong with it
        stem, others = record.path.stem, itertools.count(number)
        while stem.lower() in taken:
            stem = f"{record.path.stem}-{next(others)}"
        taken.add(stem.lower())
        name = f"{stem}{record.path.suffix}"
        try:
            shutil.copyfile(record.path, folder / name)
        except OSError as error:
            raise GCNetError(f"cannot copy {record.path} to {folder.name}: {error.strerror}") from None
        names.append(name)
    return names


def _write_coco(dataset: DataSet[ImageRecord], names: Sequence[str], path: Path) -> None:
    images, annotations = [], []
    for id, (record, name) in enumerate(zip(dataset.records, names, strict=True), start=1):
        images.append({"id": id, "file_name": name, "width": record.width, "height": record.height})
        for item in record.instances:
            entry = {"id": len(annotations) + 1, "image_id": id, **coco_object(item)}
            annotations.append(entry | {"category_id": dataset.category_ids[item.label]})
    pairs = zip(dataset.category_ids, dataset.class_names, strict=True)
    categories = [{"id": id, "name": name, "supercategory": ""} for id, name in pairs]
    content = {"images": images, "annotations": annotations, "categories": categories}
    prepare_folder(path.parent)
    write_bytes(path, json.dumps(content, allow_nan=False).encode())


def coco_object(item: Instance) -> dict[str, Any]:
    """An annotation with the fields of COCO, without ids."""
    x1, y1, x2, y2 = item.box
    if isinstance(item.segmentation, dict):
        counts = item.segmentation["counts"].decode("ascii")
        segmentation: Any = {"size": list(item.segmentation["size"]), "counts": counts}
    else:
        segmentation = [polygon.ravel().tolist() for polygon in item.segmentation]
    box = [x1, y1, x2 - x1, y2 - y1]
    marks = {"iscrowd": int(item.crowd), **({"ignore": 1} if item.ignore else {})}
    return {"bbox": box, "area": item.area, **marks, "segmentation": segmentation}


def _write_labels(dataset: DataSet[ImageRecord], names: Sequence[str], folder: Path) -> None:
    prepare_folder(folder)
    left_out = 0
    for record, name in zip(dataset.records, names, strict=True):
        objects = record.objects(masks=False)
        left_out += len(record.instances) - len(objects)
        lines = [yolo_line(item, record.width, record.height) for item in objects]
        write_bytes((folder / name).with_suffix(".txt"), "".join(lines).encode())
    if left_out:
        warn(dataset.source, f"{left_out} objects are crowds or of no use; left out")


def yolo_line(item: Instance, width: int, height: int) -> str:
    """The label and an outline, or middle and size of a box, as shares of the image."""
    outline = _one_outline(item.segmentation)
    if len(outline):
        values = (outline / (width, height)).clip(0, 1).ravel()
    else:
        corners = (np.array(item.box).reshape(2, 2) / (width, height)).clip(0, 1)
        values = np.concatenate([corners.mean(0), corners[1] - corners[0]])
    return " ".join([str(item.label), *(f"{value:.7g}" for value in values.tolist())]) + "\n"


def _one_outline(segmentation: Segmentation) -> Float[np.ndarray, "P 2"]:
    """All parts of an outline joined by lines without width: YOLO has one outline for each object."""
    parts = polygons(segmentation) if isinstance(segmentation, dict) else segmentation
    if not parts:
        return np.zeros((0, 2))
    there = [np.concatenate([part, part[:1]]) for part in parts] if len(parts) > 1 else list(parts)
    back = [part[:1] for part in reversed(parts[1:-1])]
    return np.concatenate([*there, *back])


def polygons(rle: dict[str, Any]) -> list[np.ndarray]:
    """The outer outlines of a mask, along the borders of its pixels; holes are filled."""
    x, y, width, height = coco_mask.toBbox(rle).astype(int).tolist()
    mask = np.pad(rle_to_mask(rle)[y : y + height, x : x + width], 1)
    # Each pixel as 2 x 2: contours go through the middles of pixels, now a quarter from the border.
    contours, _ = cv2.findContours(
        np.repeat(np.repeat(mask, 2, 0), 2, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    parts = [contour[:, 0].astype(np.float64) / 2 - 1 for contour in contours]
    # Points lie at the first or the second half of a pixel; the border is before or after it.
    return [part + part % 1 + (x, y) for part in parts if len(part) > 2]
