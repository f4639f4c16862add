"""Reads labels of KITTI and of DOTA: a text file for each image, with an object in each line."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.data.dataset import WHOLE
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import head_of, object_of, read_lines, readable
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source, warn
from gcnet.errors import GCNetError

_NUMBER = rb"[ \t]*-?\d+\.?\d*(?:[eE][-+]?\d+)?"
_KITTI = re.compile(rb"[A-Za-z]\S*(?:[ \t]%b){14,15}\s*(?:\n|$)" % _NUMBER)
_DOTA = re.compile(
    rb"imagesource:|gsd:|(?:%b[ \t]){8}[ \t]*[A-Za-z]\S*(?:[ \t]+\d+)?[ \t\r]*(?:\n|$)" % _NUMBER
)
_HEADER = ("imagesource:", "gsd:")
_REGION = "DontCare"
_MOST_REGIONS = 300_000  # times classes; KITTI's are 90,000


def find_kitti(root: Path) -> Readers:
    """`training/label_2/000000.txt` of `training/image_2/000000.png`, or `labels/` of `images/`.

    KITTI has no labels of its `testing/`, so that `training/` is all there is, and is divided.
    """
    fits = partial(_is_label_file, _KITTI)
    found = file_an_image(root, ".txt", fits, partial(_read_lines, _kitti_object))
    is_whole = found.keys() == {"train"} and any(root.glob("**/training/label_2"))
    return {WHOLE: found["train"]} if is_whole else found


def find_dota(root: Path) -> Readers:
    """`train/labelTxt/P0000.txt` of `train/images/P0000.png`."""
    fits = partial(_is_label_file, _DOTA)
    return file_an_image(root, ".txt", fits, partial(_read_lines, _dota_object))


def _is_label_file(line: re.Pattern[bytes], path: Path) -> bool:
    return line.match(head_of(path).removeprefix(b"\xef\xbb\xbf")) is not None


def _read_lines(
    parse: Callable[[Sequence[str]], dict[str, Any]], folder: Path, files: Sequence[Path]
) -> Source:
    entries = Entries()
    read: dict[str, Path] = {}
    regions: list[dict[str, Any]] = []
    # The file of an image without objects is empty, and so could be of any format.
    every = (path for place in {path.parent for path in files} for path in place.glob("*.txt"))
    empty = {path for path in every if not head_of(path).strip()}
    for path, lines in readable(sorted({*files} | empty), read_lines):
        above = path.absolute().parents
        places = [place / name for place in above[1:4] for name in ("images", "image_2")]
        places += [place / "image_2" / path.parent.name for place in above[2:3]]
        image = entries.image_beside(path, "", places)
        if not os.path.isfile(image):
            if path in empty:
                continue
            image = path.stem  # by which it is looked for elsewhere
        elif read.setdefault(image, path) != path:
            raise GCNetError(f"{path} and {read[image]} are both of {image}; keep one of them")
        entries.add_image(image)
        for number, line in enumerate(lines, start=1):
            if line.startswith(_HEADER):
                continue
            id, drawn = f"{path.name}:{number}", object_of(parse, line.split())
            if drawn.get("category_id") == _REGION:
                regions.append({"id": id, "image_id": len(entries.images), **drawn})
            else:
                entries.add_object(id, "", drawn)
    # What is found in a region that nobody annotated counts for no class, so that it is one of each.
    names = sorted({one["category_id"] for one in entries.objects} - {""})
    if len(names) * len(regions) > _MOST_REGIONS:
        warn(folder, f"{_REGION} regions of so many classes are not ignored")
        names = []
    for name in names:
        marks = {"category_id": name, "ignore": 1}
        entries.objects += [{**one, **marks, "id": f"{one['id']} {name}"} for one in regions]
    return entries.source(folder, folder)


def _kitti_object(words: Sequence[str]) -> dict[str, Any]:
    """A box by its edges, behind the class, two kinds of hiding and an angle; the rest is in space."""
    x1, y1, x2, y2 = map(float, words[4:8])
    return {"category_id": words[0], "bbox": [x1, y1, x2 - x1, y2 - y1]}


def _dota_object(words: Sequence[str]) -> dict[str, Any]:
    """Four corners, the class, and whether it is difficult: such count neither way in DOTA's own scores."""
    corners = [float(word) for word in words[:8]]
    return {"category_id": words[8], "segmentation": [corners], "ignore": int((words[9:] or ["0"])[0] != "0")}
