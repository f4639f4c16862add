"""Reads lists of images with boxes behind each: `a.jpg x1,y1,x2,y2,class x1,y1,x2,y2,class`.

YOLO for Keras and its descendants have them, and so does Roboflow. Classes are numbers from 0, which a
`_classes.txt` or `classes.txt` names.
"""

from __future__ import annotations

import re
from pathlib import Path

from gcnet.data.dataset import split_of
from gcnet.data.readers.csv_table import UNNAMED, read_rows
from gcnet.data.readers.files import existing, head_of, read_lines
from gcnet.data.readers.splits import Readers, file_a_split
from gcnet.data.source import Source, warn, warn_of_some

_NAMES = ("_classes.txt", "classes.txt", "class_names.txt")
_LINE = re.compile(r"(.*?)((?:\s+[^\s,]+(?:,[^\s,]+){4})*)")
_NO_BOX = [""] * 5
_BOX = re.compile(rb"^\S.*\.\w+\s+\d+(,\d+){4}(\s|$)", re.MULTILINE)


def find_box_lines(root: Path) -> Readers:
    """`train/_annotations.txt`, or `2007_train.txt` and `2007_val.txt`."""
    return file_a_split(root, "txt", is_box_list, _read_box_lines)


def is_box_list(path: Path) -> bool:
    """Whether a file is a list of images with boxes, by its name and its first lines."""
    named = split_of(path.stem) or "annotation" in path.stem.lower()
    return bool(named) and path.suffix.lower() == ".txt" and _BOX.search(head_of(path)) is not None


def _read_box_lines(path: Path, root: Path, split: str) -> Source:
    file = existing(folder / name for folder in (path.parent, root) for name in _NAMES)
    names = read_lines(file) if file else []
    if not names:
        warn(path, f"there is no {' or '.join(_NAMES[:2])}; classes are called by their numbers")
    rows: list[list[str]] = []
    for line in read_lines(path):
        found = _LINE.fullmatch(line)
        image, boxes = found.groups() if found else (line, "")
        rows += [[image, *box.split(",")] for box in boxes.split()] or [[image, *_NO_BOX]]
    if file and names:
        known = {str(number): name for number, name in enumerate(names)}
        numbers = [row[5] for row in rows if row[1:] != _NO_BOX]
        unknown = [number for number in numbers if number not in known]
        warn_of_some(path, unknown, len(numbers), f"boxes have a class that {file.name} lacks; left out")
        rows = [[*row[:5], known[row[5]]] if row[5] in known else [row[0], *_NO_BOX] for row in rows]
    return read_rows(path, root, split, dict(enumerate(rows, start=1)), UNNAMED, names)
