"""COCO files with one to three things wrong in them, loaded and drawn from as training does."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gcnet.data.detection import trainable
from gcnet.data.load import load_split, load_splits
from gcnet.data.transforms import Sample
from gcnet.recipe import Recipe

SIZE = (40, 48)
WHOLE_RLE = {"size": list(SIZE), "counts": [400, 300, SIZE[0] * SIZE[1] - 700]}
NUMBERS = (0, -1, 1, 0.5, 1e7, 1e8, 1e18, -1e18, 1e300, 2**31, 2**32 + 1, 2**63, 10**30, 10**400, -(2**63))
WORDS = (
    "",
    "cat",
    "\x1b[31mred",
    "bolt [m8]",
    "nut [/m8]",
    "\ud800",
    "a\nb",
    "x" * 5000,
    "\u202e",
    "NaN",
    "1",
)
PLACES = (
    "../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "..",
    ".",
    "/",
    "0.png\x00",
    "y" * 300,
    "a/../0.png",
)
RAW = ("NaN", "Infinity", "-Infinity", "1" * 5000, "1e999", "[" * 3000 + "]" * 3000, '"\\ud800"', "1.", "tru")
COUNTS = (
    "",
    "0",
    "P`1",
    "x" * 1000,
    "\x7f\x7f\x7f",
    "ooooooooooooooooo",
    "`````````````0",
    "~",
    "é",
    "00" * 500,
)
MARK = "replace me by text that json would not write"


def sound() -> dict[str, Any]:
    """A file with nothing wrong in it: polygons, both kinds of RLE, two classes."""
    images = [
        {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]} for number in (1, 2)
    ]
    square = [4, 4, 30, 4, 30, 30, 4, 30]
    outlines: list[Any] = [[square], [[5, 5, 20, 6, 9, 25], square], deepcopy(WHOLE_RLE)]
    annotations = [
        {
            "id": number,
            "image_id": 1 + number % 2,
            "category_id": 1 + number % 2,
            "bbox": [4, 4, 26, 26],
            "area": 676,
            "iscrowd": int(isinstance(outline, dict)),
            "segmentation": outline,
        }
        for number, outline in enumerate([*outlines, [square]])
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(chance: random.Random, folder: Path) -> Path:
    """A folder with two images and a hostile `_annotations.coco.json` in `train/`."""
    train = folder / "train"
    train.mkdir()
    for number in (1, 2):
        cv2.imwrite(str(train / f"{number}.png"), np.full((*SIZE, 3), 90 * number, np.uint8))
    (train / "_annotations.coco.json").write_bytes(damaged(chance, sound()))
    return folder


def damaged(chance: random.Random, content: Any, *, lines: bool = False) -> bytes:
    """JSON with one to three things wrong in `content`; with `lines` an entry a line."""
    raw = ""
    for _ in range(chance.randint(1, 3)):
        spot = _spot(chance, content)
        if spot is None:
            break
        holder, key = spot
        if chance.random() < 0.15:
            raw, holder[key] = chance.choice(RAW), MARK
        else:
            _change(chance, holder, key)
    text = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
    data = text.replace(json.dumps(MARK), raw).encode("utf-8", "surrogatepass")
    return _damage(chance, data) if chance.random() < 0.1 else data


def _spot(chance: random.Random, content: Any) -> tuple[Any, Any] | None:
    """A place in the file: what holds it, and its key there."""
    spots: list[tuple[Any, Any]] = []

    def look(value: Any) -> None:
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in list(keys)[:50]:
            spots.append((value, key))
            look(value[key])

    look(content)
    return chance.choice(spots) if spots else None


def _change(chance: random.Random, holder: Any, key: Any) -> None:
    old = holder[key]
    strange = [
        lambda: chance.choice(NUMBERS),
        lambda: chance.choice(WORDS),
        lambda: chance.choice(PLACES),
        lambda: chance.choice([None, True, False, [], {}, [[]], [None], {"size": [1, 1]}]),
        lambda: {"size": _sizes(chance), "counts": _counts(chance)},
        lambda: [[chance.choice(NUMBERS) for _ in range(chance.choice([2, 6, 7, 8]))]],
        lambda: [old] * chance.choice([2, 100, 3000 if len(str(old)) < 100 else 3]),
        lambda: old[: len(old) // 2] if isinstance(old, list | str) else chance.choice(NUMBERS),
        lambda: _nested(old, chance.choice([2, 50, 200])),
    ]
    if chance.random() < 0.1:
        del holder[key]
    elif isinstance(old, list) and len(old) < 50 and chance.random() < 0.2:
        old += old[:]
    else:
        holder[key] = chance.choice(strange)()


def _sizes(chance: random.Random) -> Any:
    return chance.choice(
        [list(SIZE), [0, 0], [-1, 5], [10**9, 10**9], [2**32, 1], [40.5, 48], ["40", "48"], [40]]
    )


def _counts(chance: random.Random) -> Any:
    numbers = [chance.choice([*NUMBERS, 5, 100, 1920]) for _ in range(chance.randint(0, 6))]
    return chance.choice(
        [chance.choice(COUNTS), numbers, [2**32 - 5, 1925], [-5, 1925], [1] * 1920, [0] * 5000]
    )


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _damage(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(max(len(data), 1))
    return chance.choice(
        [data[:at], data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :], b"\xff" + data, b""]
    )


def read(path: Path) -> None:
    """All that training and evaluation ask of annotations: outlines as masks for every object."""
    for dataset in load_splits(path).values():
        for index in trainable(dataset, Recipe()):
            Sample.of(dataset.read_image(index), dataset.records[index], masks=True).targets()
    load_split(path, "train", ["cat", "dog"])
