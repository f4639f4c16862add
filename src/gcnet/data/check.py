"""Checks the headers and ends of all images before a training, in parallel.

Files that passed are remembered in the cache folder by size and time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.console import listed, progress_bar
from gcnet.data.dataset import DataSet, ImageRecord, LabelledImage
from gcnet.errors import GCNetError
from gcnet.files import cache_folder, write_json
from gcnet.image_files import MAX_PIXELS
from gcnet.ops.decode import image_size, read_image

log = logging.getLogger(__name__)

_TAIL = 1 << 12  # bytes at the end of a file in which the mark of its end is looked for
_END = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}

# For an image that passed: size and time of its file, height and width of the image.
Known = dict[str, tuple[int, int, int, int]]


def check_images(
    splits: Mapping[str, DataSet[Any]],
    *,
    skip: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> dict[str, DataSet[Any]]:
    """Checks that all images exist, are whole, and have their annotated sizes. Returns the splits.

    Raises GCNetError with all images that are not so. With `skip` those are left out, in a warning; it is
    an error if a split has no others.
    """
    splits = {split: replace(dataset, max_pixels=max_pixels) for split, dataset in splits.items()}
    problems = find_problems(splits, progress=progress)
    if problems:
        _tell(problems, sum(map(len, splits.values())), skip)
    return {split: _without(dataset, problems) for split, dataset in splits.items()}


def find_problems(splits: Mapping[str, DataSet[Any]], *, progress: bool = False) -> dict[Path, str]:
    """The problem of each image that `check_images` would refuse."""
    records = [record for dataset in splits.values() for record in dataset.records]
    limits = [dataset.max_pixels for dataset in splits.values() for _ in dataset.records]
    cache = _cache(splits)
    known = _remembered(cache)
    problems: dict[Path, str] = {}
    whole: Known = {}
    work = partial(_look, known)
    with progress_bar(disable=not progress, transient=True) as bar, ThreadPoolExecutor(8) as pool:
        task = bar.add_task("looking at images", total=len(records))
        for record, found in zip(records, pool.map(work, records, limits), strict=True):
            if isinstance(found, str):
                problems[record.path] = found
            else:
                whole[str(record.path)] = found
            bar.advance(task)
    if whole != known:
        with contextlib.suppress(OSError, GCNetError):  # it is only sooner with it
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, whole)
    return problems


def _tell(problems: Mapping[Path, str], count: int, skip: bool) -> None:
    # Names within the folder that all are in: three whole paths would not fit in a line.
    folder = os.path.commonpath([path.absolute().parent for path in problems])
    short = [problem.replace(str(path), os.path.relpath(path, folder)) for path, problem in problems.items()]
    share, named = f"{len(problems)} of {count} images", listed(short, 3, "; ")
    if not skip:
        raise GCNetError(
            f"{share} cannot be trained on: in {folder}, {named}; "
            "restore or remove them, or leave them out with --skip-bad-images"
        )
    log.warning("%s are left out: in %s, %s", share, folder, named)


def _without(dataset: DataSet[Any], problems: Mapping[Path, str]) -> DataSet[Any]:
    records = [record for record in dataset.records if record.path not in problems]
    if not records and len(dataset):
        raise GCNetError(f"{dataset.source} has no image that can be read; restore some")
    return replace(dataset, records=records)


def _look(
    known: Known, record: ImageRecord | LabelledImage, max_pixels: int
) -> str | tuple[int, int, int, int]:
    """The problem of an image, or the state of its file to remember."""
    try:
        about = _state(record.path)
        *then, height, width = known.get(str(record.path), (-1, -1, 0, 0))
        if tuple(then) != about or height * width > max_pixels:
            height, width = image_size(record.path, max_pixels=max_pixels)
            if not _has_end(record.path):
                read_image(record.path, max_pixels=max_pixels)
    except GCNetError as error:
        return str(error).split(";")[0]
    sizes = (record.height, record.width) if isinstance(record, ImageRecord) else (height, width)
    if sorted((height, width)) != sorted(sizes):
        return f"{record.path} is {width}x{height} pixels, annotated as {sizes[1]}x{sizes[0]}"
    return *about, height, width


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros if it does not exist, which is reported when it is opened."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _has_end(path: Path) -> bool:
    """Whether a file has the end mark of its format; True for formats without one."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(4)
        file.seek(max(path.stat().st_size - _TAIL, 0))
        tail = file.read()
        return any(head.startswith(start) and mark in tail for start, mark in _END.items())
    return False


def _cache(splits: Mapping[str, DataSet[Any]]) -> Path:
    """The cache file of a data set, by its path."""
    sources = sorted(str(dataset.source.absolute()) for dataset in splits.values())
    return cache_folder() / "images" / f"{hashlib.sha256(repr(sources).encode()).hexdigest()[:16]}.json"


def _remembered(cache: Path) -> Known:
    """What a cache file says; nothing of one that is missing or damaged."""
    damaged = (ValueError, TypeError, AttributeError, RecursionError, OverflowError)
    with contextlib.suppress(OSError, *damaged):
        entries = json.loads(cache.read_bytes()).items()
        return {path: (int(a), int(b), int(height), int(width)) for path, (a, b, height, width) in entries}
    return {}
