"""Time and memory of reading a large data set, of looking through it, and of checking its images.

    python benchmarks/data_sets.py --annotations 200000 --classes 1200 --images 10000

Annotations are polygons in COCO's JSON, evenly spread over the images and, as in LVIS, unevenly over the
classes. The images are JPEGs of 640 x 480: a few are drawn, the others are copies. Each step is a process of
its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 640, 480
POINTS = 24  # of an outline
DRAWN = 20  # different images


def main() -> None:
    """Makes the data set, measures, and prints."""
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GCNET_HOME"] = name  # where the second check finds what the first one saw
        count = (options.images, options.annotations, options.classes)
        size = apart(make_data, folder, *count)
        print(f"{options.annotations:,} annotations of {options.classes:,} classes, {size / 1e6:.0f} MB")
        print(f"{options.images:,} images of {WIDTH} x {HEIGHT}", flush=True)
        for step in (imports, load, survey, check, check):
            print(f"{step.__doc__:45}{apart(measured, step, folder)}", flush=True)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own: a child's peak of memory begins with its parent's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measured(step: Callable[[Path], Callable[[], object]], folder: Path) -> str:
    """Wall and CPU time of what a step returns, and the process's peak of memory."""
    work = step(folder)
    began, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{wall:7.2f} s, {cpu:7.2f} s of CPU, peak {peak:6.0f} MB"


def imports(folder: Path) -> Callable[[], object]:
    """nothing, after all imports"""
    from gcnet.data import check, load, suspects

    return lambda: (check, load, suspects)


def load(folder: Path) -> Callable[[], object]:
    """reading"""
    from gcnet.data.load import load_splits

    return lambda: load_splits(folder)


def survey(folder: Path) -> Callable[[], object]:
    """counts, sizes and suspects of `gcnet data`"""
    from gcnet.data.load import load_splits
    from gcnet.data.survey import survey
    from gcnet.data.suspects import find_suspects

    splits = load_splits(folder)

    def work() -> object:
        found = survey(splits)
        return find_suspects(found.objects, found.class_names)

    return work


def check(folder: Path) -> Callable[[], object]:
    """headers and ends of the images"""
    from gcnet.data.check import check_images
    from gcnet.data.load import load_splits

    splits = load_splits(folder)
    return lambda: check_images(splits)


def make_data(folder: Path, images: int, annotations: int, classes: int) -> int:
    """Writes it as one folder a split; returns the bytes of its JSON."""
    rng = np.random.default_rng(0)
    split = folder / "train"
    split.mkdir()
    for number in range(images):
        path = split / f"{number}.jpg"
        if number < DRAWN:
            coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
        else:
            shutil.copy(split / f"{number % DRAWN}.jpg", path)
    labels = (classes * rng.random(annotations) ** 3).astype(int)
    corners = rng.uniform(0, (WIDTH - 130, HEIGHT - 130), (annotations, 2))
    sides = rng.uniform(8, 120, annotations)
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    circle = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    entries = []
    for number in range(annotations):
        outline = (corners[number] + sides[number] * circle).round(1)
        (x, y), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
        entries.append(
            {
                "id": number,
                "image_id": number % images,
                "category_id": int(labels[number]),
                "bbox": [x, y, right - x, bottom - y],
                "area": 0.78 * float(sides[number]) ** 2,
                "iscrowd": 0,
                "segmentation": [outline.ravel().tolist()],
            }
        )
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in range(images)
        ],
        "annotations": entries,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(classes)],
    }
    path = split / "_annotations.coco.json"
    path.write_text(json.dumps(content))
    return path.stat().st_size


def parse() -> argparse.Namespace:
    """The options of this script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--annotations", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=1200)
    parser.add_argument("--images", type=int, default=10_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
