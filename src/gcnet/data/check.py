"""Images are looked at before a training begins: their headers and ends, in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gcnet.console import listed
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.errors import GCNetError
from gcnet.ops.decode import image_size, read_image

_TAIL = 1 << 12  # bytes at the end of a file in which the mark of its end is looked for
_END = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}


def check_images(splits: Mapping[str, DataSet[Any]]) -> None:
    """Raises GCNetError with all images that are missing, cut off, or not of their annotated size."""
    records = [record for dataset in splits.values() for record in dataset.records]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(_problem, [record for record in records if isinstance(record, ImageRecord)])
        problems = [problem for problem in found if problem]
    if problems:
        raise GCNetError(
            f"{len(problems)} of {len(records)} images cannot be trained on: {listed(problems, 3, '; ')}; "
            "restore or remove them"
        )


def _problem(record: ImageRecord) -> str | None:
    try:
        if not _has_end(record.path):
            read_image(record.path)
        height, width = image_size(record.path)
    except GCNetError as error:
        return str(error).split(";")[0]
    if sorted((height, width)) != sorted((record.height, record.width)):
        return f"{record.path} is {width}x{height} pixels, annotated as {record.width}x{record.height}"
    return None


def _has_end(path: Path) -> bool:
    """Whether a file ends as its format says; unknown formats do."""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
            file.seek(max(path.stat().st_size - _TAIL, 0))
            tail = file.read()
    except OSError:
        return False
    return all(mark in tail for start, mark in _END.items() if head.startswith(start))
