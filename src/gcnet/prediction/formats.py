"""Writes detections in the formats of `--format`, from the journal, one image at a time."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64

from gcnet.data.dataset import Instance
from gcnet.data.write import coco_object
from gcnet.errors import needs
from gcnet.evaluation.results import ImageResults
from gcnet.files import disk_errors, write_atomically, write_json
from gcnet.ops.segmentations import segmentation_area
from gcnet.remote import is_address
from gcnet.weights.catalog import COCO_CLASSES

# COCO's own ids go to 90; these have no class.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_ROWS = 500  # of a table that are made at a time
_ESCAPED = "backslashreplace"  # how bytes of a file name are written that are no UTF-8
_CSV = ("image_id", "file_name", "width", "height", "label", "class_name", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class ImageFound:
    """The result for an image: its entry, and the detections if it could be read."""

    entry: dict[str, Any]
    results: ImageResults | None

    @classmethod
    def of(cls, entry: dict[str, Any], found: dict[str, Any] | None) -> ImageFound:
        """The inverse, from plain values in a journal."""
        return cls(entry, None if found is None else ImageResults.from_json(entry["id"], found))


# All images, whenever they are asked for.
Images = Callable[[], Iterable[ImageFound]]


def category_ids(class_names: Sequence[str]) -> list[int]:
    """The id of each class in a data set: COCO's own for COCO's classes, else 1, 2, ..."""
    if tuple(class_names) == COCO_CLASSES:
        return [id for id in range(1, 91) if id not in _COCO_GAPS]
    return [label + 1 for label in range(len(class_names))]


def objects_of(results: ImageResults) -> Iterator[Instance]:
    """The detections of an image as objects of a data set: boxes are xyxy."""
    height, width = results.size
    columns = (results.boxes.tolist(), results.category_ids.tolist())
    for number, ((x, y, w, h), label) in enumerate(zip(*columns, strict=True)):
        mask: Any = []
        if results.counts is not None:
            mask = {"size": [height, width], "counts": results.counts[number]}
        area = segmentation_area(mask, height, width) if mask else w * h
        yield Instance(number, label, (x, y, round(x + w, 3), round(y + h, 3)), mask, area, crowd=False)


def image_row(image: ImageFound, class_names: Sequence[str]) -> dict[str, Any]:
    """The entry of an image with its detections; for a classifier, the entry alone."""
    if image.results is None:
        return image.entry
    results = image.results
    detections = []
    for number, item in enumerate(objects_of(results)):
        one = {"box": list(item.box), "score": float(results.scores[number]), "label": item.label}
        one["class_name"] = class_names[item.label]
        if results.counts is not None:
            one["mask"] = {"size": list(results.size), "counts": results.counts[number].decode("ascii")}
        detections.append(one)
    return {key: value for key, value in image.entry.items() if key != "overlay"} | {"detections": detections}


# One file ---------------------------------------------------------------------------------------------


def result_entries(image: ImageFound, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The detections of an image in COCO's results format, with names beside ids."""
    if image.results is None:
        return []
    file_name = image.entry["file_name"]
    return [
        one | {"file_name": file_name, "category_name": class_names[one["category_id"]]}
        for one in image.results.entries()
    ]


def write_coco_results(path: Path, images: Images, class_names: Sequence[str]) -> None:
    """All detections in COCO's results format."""
    write_json(path, (one for image in images() for one in result_entries(image, class_names)))


def write_coco(path: Path, images: Images, class_names: Sequence[str]) -> None:
    """A COCO data set. File names are relative to the folder of all images."""
    root = _common_folder(image.entry["file_name"] for image in images())
    ids = category_ids(class_names)

    def read() -> Iterator[tuple[dict[str, Any], ImageResults]]:
        return ((one.entry, one.results) for one in images() if one.results is not None)

    def image_entries() -> Iterator[dict[str, Any]]:
        for image, _ in read():
            entry = {key: image[key] for key in ("id", "width", "height")}
            name = image["file_name"]
            yield entry | {"file_name": Path(os.path.relpath(name, root)).as_posix() if root else name}

    def annotations() -> Iterator[dict[str, Any]]:
        numbers = itertools.count(1)
        for image, results in read():
            for item in objects_of(results):
                named = {"id": next(numbers), "image_id": image["id"], "category_id": ids[item.label]}
                yield named | coco_object(item) | {"score": float(results.scores[item.id])}

    categories = [{"id": id, "name": name} for id, name in zip(ids, class_names, strict=True)]
    parts = {"images": image_entries(), "annotations": annotations(), "categories": categories}
    _write(path, lambda file: _write_lists(file, parts))


def _common_folder(paths: Iterable[str]) -> str:
    """The folder that contains all images; empty for addresses."""
    folders = {os.path.dirname(path) for path in paths}
    if not folders or any(is_address(folder) for folder in folders):
        return ""
    return os.path.commonpath([os.path.abspath(folder) for folder in folders])


def write_csv(path: Path, images: Images, class_names: Sequence[str]) -> None:
    """A line for each detection, or for each class that a classifier gives."""

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, "utf-8", _ESCAPED, newline="", write_through=True)
        table = csv.writer(text)
        of_detector = bool(class_names)
        table.writerow(_CSV if of_detector else ("file_name", "class_name", "probability"))
        for image in images():
            table.writerows(_detection_rows(image, class_names) if of_detector else _class_rows(image))
        text.detach()

    _write(path, write)


def _detection_rows(image: ImageFound, class_names: Sequence[str]) -> Iterator[Sequence[Any]]:
    for one in image_row(image, class_names).get("detections", []):
        of_image = [image.entry[key] for key in ("id", "file_name", "width", "height")]
        yield [*of_image, one["label"], one["class_name"], one["score"], *one["box"]]


def _class_rows(image: ImageFound) -> Iterator[Sequence[Any]]:
    found = zip(image.entry.get("predicted", ()), image.entry.get("probabilities", ()), strict=True)
    return ((image.entry["file_name"], *one) for one in found)


def _write_lists(file: BinaryIO, lists: Mapping[str, Iterable[Any]]) -> None:
    """A JSON object of lists, with one entry in each line."""
    for place, (name, entries) in enumerate(lists.items()):
        file.write(f"{',' if place else '{'}\n{json.dumps(name)}: [".encode())
        for number, entry in enumerate(entries):
            file.write((",\n" if number else "\n").encode() + json.dumps(entry, allow_nan=False).encode())
        file.write(b"\n]")
    file.write(b"\n}\n")


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with disk_errors(path):
        write_atomically(path, write)


# A file for so many images ----------------------------------------------------------------------------


def write_jsonl(path: Path, images: Iterable[ImageFound], class_names: Sequence[str]) -> None:
    """A line of JSON for each image, with its detections."""
    lines = (json.dumps(image_row(image, class_names), allow_nan=False) + "\n" for image in images)
    _write(path, lambda file: file.writelines(line.encode() for line in lines))


def write_parquet(path: Path, images: Iterable[ImageFound], class_names: Sequence[str]) -> None:
    """A row for each image, with its detections in a list."""
    arrow, parquet = needs("pyarrow", "parquet"), needs("pyarrow.parquet", "parquet")
    schema = row_schema(arrow, of_detector=bool(class_names))
    rows = (_in_utf8(image_row(image, class_names)) for image in images)

    def write(file: BinaryIO) -> None:
        with parquet.ParquetWriter(file, schema) as writer:
            while group := list(itertools.islice(rows, _ROWS)):
                writer.write_table(arrow.Table.from_pylist(group, schema=schema))

    _write(path, write)


def _in_utf8(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose file name and error Arrow can hold."""
    texts = {key: value for key, value in row.items() if isinstance(value, str)}
    return row | {key: value.encode("utf-8", _ESCAPED).decode() for key, value in texts.items()}


def row_schema(arrow: Any, *, of_detector: bool) -> Any:
    """Arrow's schema of `image_row`, so that files without detections have the same columns."""
    text, whole, number = arrow.string(), arrow.int64(), arrow.float64()
    if not of_detector:
        classes = [("predicted", arrow.list_(text)), ("probabilities", arrow.list_(number))]
        return arrow.schema([("file_name", text), *classes, ("error", text)])
    mask = arrow.struct([("size", arrow.list_(whole)), ("counts", text)])
    found = [("box", arrow.list_(number)), ("score", number), ("label", whole), ("class_name", text)]
    detections = arrow.list_(arrow.struct([*found, ("mask", mask)]))
    sizes = [("id", whole), ("file_name", text), ("width", whole), ("height", whole)]
    return arrow.schema([*sizes, ("detections", detections), ("error", text)])


# By the words of --format: of one file each, and of one for so many images each.
WHOLE = {
    "coco-results": ("results.json", write_coco_results),
    "coco": ("coco.json", write_coco),
    "csv": ("results.csv", write_csv),
}
PARTS = {"jsonl": write_jsonl, "parquet": write_parquet}


class Parts:
    """The files `results-00000.jsonl`, ... of so many images each: each is written when its last one is done.

    Args:
        formats: those of `PARTS` that are wanted, and others.
        ours: the indices of all images, in order.
    """

    def __init__(self, formats: Sequence[str], ours: Int64[np.ndarray, " N"], images_a_file: int) -> None:
        self.formats = [word for word in formats if word in PARTS]
        self.ours, self.size = ours, images_a_file
        self.count = -(-len(ours) // images_a_file) if self.formats else 0

    def indices(self, part: int) -> Int64[np.ndarray, " P"]:
        """The images of a part."""
        return self.ours[part * self.size : (part + 1) * self.size]

    def part_of(self, index: int) -> int:
        """The part of an image."""
        return int(np.searchsorted(self.ours, index)) // self.size

    def write(self, folder: Path, part: int, images: Images, class_names: Sequence[str]) -> Iterator[str]:
        """Writes the files of a part; their names."""
        for word in self.formats:
            name = _part_name(part, word)
            PARTS[word](folder / name, images(), class_names)
            yield name

    def names(self) -> list[str]:
        """The names of all files."""
        return [_part_name(part, word) for word in self.formats for part in range(self.count)]


def _part_name(part: int, word: str) -> str:
    return f"results-{part:05}.{word}"
